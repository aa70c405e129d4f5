"""Reading repositories: files, branches, pull requests, people, archives."""

from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from ci_bot.events import RepositoryRef
from ci_bot.github import Commit, Forbidden, GitHub, Gone, Rejected, Role, TooLarge, Unauthorized, Unavailable
from tests.unit.github.fake import (
    REPO,
    A,
    B,
    FakeGitHub,
    call,
    file_answer,
    ok,
    pull_answer,
    repository_answer,
    said,
)

PATH = "/repos/octo/digits"
TARBALL = f"{PATH}/tarball/{A}"
CODELOAD = "https://codeload.example/octo/digits/legacy.tar.gz/x"


def read(fake: FakeGitHub, path: str = "config.yaml", max_bytes: int = 1000) -> bytes | None:
    return call(fake, lambda github: github.read_file(REPO, path, A, max_bytes))


def test_a_repository_is_given_under_its_present_name(fake: FakeGitHub) -> None:
    fake.on("GET", PATH, ok(repository_answer(full_name="octo/numbers", default_branch="trunk")))
    found = call(fake, lambda github: github.repository(REPO))
    assert (found.full_name, found.default_branch, found.installation_id) == ("octo/numbers", "trunk", 11)


def test_a_repository_of_an_event_will_do(fake: FakeGitHub) -> None:
    fake.on("GET", PATH, ok(repository_answer()))
    ref = RepositoryRef(7, "octo/digits", "main", True, 11)
    assert call(fake, lambda github: github.repository(ref)) == REPO


def test_the_list_of_repositories_is_asked_for_with_a_token_that_reads_nothing_else(fake: FakeGitHub) -> None:
    fake.on("GET", "/installation/repositories", ok({"repositories": []}))
    call(fake, lambda github: github.installation_repositories(11))
    (request,) = fake.tokens.values()
    assert request == {"permissions": {"metadata": "read"}}


def test_all_pages_of_a_list_are_read(fake: FakeGitHub) -> None:
    link = '<https://api.example/installation/repositories?page=2>; rel="next"'
    first, second = repository_answer(id=1), repository_answer(id=2)
    fake.on(
        "GET", "/installation/repositories", ok({"repositories": [first]}, link=link), ok({"repositories": [second]})
    )
    found = call(fake, lambda github: github.installation_repositories(11))
    assert [r.id for r in found] == [1, 2]


def test_the_root_of_a_commit_lists_its_names(fake: FakeGitHub) -> None:
    tree = [{"path": ".descent", "type": "tree"}, {"path": "config.yaml", "type": "blob"}]
    fake.on("GET", f"{PATH}/git/trees/{A}", ok({"sha": A, "tree": tree, "truncated": False}))
    assert call(fake, lambda github: github.root_tree(REPO, A)) == (".descent", "config.yaml")


def test_the_root_of_no_commit_is_gone(fake: FakeGitHub) -> None:
    with pytest.raises(Gone):
        call(fake, lambda github: github.root_tree(REPO, A))


@pytest.mark.parametrize("content", [b"version: 1\n", b"", b"\x00\xff"])
def test_a_file_is_given_byte_for_byte(fake: FakeGitHub, content: bytes) -> None:
    fake.on("GET", f"{PATH}/contents/config.yaml", ok(file_answer(content)))
    assert read(fake) == content
    assert fake.requests[-1].url.params["ref"] == A


def test_odd_file_names_reach_github_unchanged(fake: FakeGitHub) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.raw_path.startswith(f"{PATH}/contents/a%20b/c%3Fd%23%7Be%7D.yaml?".encode())
        return ok(file_answer(b"x"))

    fake.on("GET", f"{PATH}/contents/a b/c?d#{{e}}.yaml", answer)
    assert read(fake, "a b/c?d#{e}.yaml") == b"x"


def test_a_missing_file_is_none(fake: FakeGitHub) -> None:
    assert read(fake) is None


def test_a_missing_commit_is_gone_not_a_missing_file(fake: FakeGitHub) -> None:
    fake.on("GET", f"{PATH}/contents/config.yaml", said(404, f"No commit found for the ref {A}"))
    with pytest.raises(Gone):
        read(fake)


@pytest.mark.parametrize("path", ["../secrets", "a/../../b", "/etc/passwd", "a//b", "./a", ""])
def test_paths_that_climb_are_not_asked_for(fake: FakeGitHub, path: str) -> None:
    assert read(fake, path) is None
    assert fake.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        [{"name": "x", "type": "file"}],
        {"type": "submodule", "size": 0},
        {"type": "file", "size": 0, "submodule_git_url": "git://x", "download_url": None},
    ],
)
def test_what_is_no_file_is_none(fake: FakeGitHub, answer: Any) -> None:
    fake.on("GET", f"{PATH}/contents/config.yaml", ok(answer))
    assert read(fake) is None


@pytest.mark.parametrize(
    "answer",
    [
        file_answer(b"x" * 1001),
        file_answer(b"x" * 1001, size=5),
        file_answer(b"", size=900, encoding="none"),
        file_answer(b"", size=None),
    ],
)
def test_files_above_the_limit_are_refused(fake: FakeGitHub, answer: Any) -> None:
    fake.on("GET", f"{PATH}/contents/config.yaml", ok(answer))
    with pytest.raises(TooLarge, match=r"config\.yaml at aaaaaaa"):
        read(fake)


@pytest.mark.parametrize("ref", ["heads/feature/x", "tags/v1"])
def test_what_a_branch_or_tag_points_to_is_asked_for_by_its_exact_name(fake: FakeGitHub, ref: str) -> None:
    fake.on("GET", f"{PATH}/git/ref/{ref}", ok({"ref": f"refs/{ref}", "object": {"sha": B}}))
    assert call(fake, lambda github: github.ref_head(REPO, f"refs/{ref}")) == B


def test_a_deleted_branch_is_none_and_a_deleted_repository_gone(fake: FakeGitHub) -> None:
    fake.on("GET", PATH, ok(repository_answer()))
    assert call(fake, lambda github: github.ref_head(REPO, "refs/heads/x")) is None
    fake.on("GET", PATH, said(404, "Not Found"))
    with pytest.raises(Gone):
        call(fake, lambda github: github.ref_head(REPO, "refs/heads/x"))


def test_an_empty_repository_has_no_branches(fake: FakeGitHub) -> None:
    fake.on("GET", f"{PATH}/git/ref/heads/main", said(409, "Git Repository is empty."))
    assert call(fake, lambda github: github.ref_head(REPO, "refs/heads/main")) is None
    fake.on("GET", f"{PATH}/git/ref/heads/main", said(400, "odd"))
    with pytest.raises(Rejected):
        call(fake, lambda github: github.ref_head(REPO, "refs/heads/main"))


@pytest.mark.parametrize(
    ("author", "expected"), [({"login": "mona"}, "mona"), (None, "Mona Lisa"), ({"login": None}, "Mona Lisa")]
)
def test_a_commit_has_a_title_and_an_author(fake: FakeGitHub, author: Any, expected: str) -> None:
    inner = {"message": "Train longer\n\nwhy not", "author": {"name": "Mona Lisa"}}
    fake.on("GET", f"{PATH}/commits/{A}", ok({"sha": A, "commit": inner, "author": author}))
    found = call(fake, lambda github: github.commit(REPO, A))
    assert found == Commit(A, "Train longer\n\nwhy not", expected)
    assert found.title == "Train longer"
    assert fake.requests[-1].url.params["per_page"] == "1", "the list of changed files is not wanted"


@pytest.mark.parametrize(
    ("fields", "is_open", "merged", "is_fork"),
    [
        ({}, True, False, False),
        ({"state": "closed", "merged": True}, False, True, False),
        ({"state": "closed", "merged": None, "merged_at": "2026-01-01T00:00:00Z"}, False, True, False),
        ({"head": {"sha": A, "ref": "main", "repo": {"id": 8}}}, True, False, True),
        ({"head": {"sha": A, "ref": "main", "repo": None}}, True, False, True),
    ],
)
def test_a_pull_request_is_given_as_it_is_now(
    fake: FakeGitHub, fields: Any, is_open: bool, merged: bool, is_fork: bool
) -> None:
    fake.on("GET", f"{PATH}/pulls/9", ok(pull_answer(**fields)))
    fake.on("GET", f"{PATH}/commits/{A}/pulls", ok([pull_answer(**fields)]))

    async def both(github: GitHub) -> tuple[Any, ...]:
        return (await github.pull_request(REPO, 9), *await github.pulls_for_commit(REPO, A))

    one, listed = call(fake, both)
    assert one == listed
    assert (one.number, one.is_open, one.merged, one.is_fork) == (9, is_open, merged, is_fork)


@pytest.mark.parametrize(
    ("answer", "role", "can_write"),
    [
        ({"permission": "admin", "role_name": "admin"}, Role.ADMIN, True),
        ({"permission": "write", "role_name": "maintain"}, Role.WRITE, True),
        ({"permission": "write", "role_name": "our own role"}, Role.WRITE, True),
        ({"permission": "read", "role_name": "triage"}, Role.READ, False),
        ({"permission": "none"}, Role.NONE, False),
        ({"permission": "superuser"}, Role.NONE, False),
        ({"role_name": "admin"}, Role.NONE, False),
    ],
)
def test_only_writers_may_act(fake: FakeGitHub, answer: Any, role: Role, can_write: bool) -> None:
    fake.on("GET", f"{PATH}/collaborators/mona/permission", ok(answer))
    found = call(fake, lambda github: github.permission(REPO, "mona"))
    assert (found, found.can_write) == (role, can_write)


def test_who_took_a_login_over_has_nothing_of_its_former_owners_rights(fake: FakeGitHub) -> None:
    fake.on("GET", f"{PATH}/collaborators/mona/permission", ok({"permission": "write", "user": {"id": 7}}))
    assert call(fake, lambda github: github.permission(REPO, "mona", 7)) is Role.WRITE
    assert call(fake, lambda github: github.permission(REPO, "mona", 6)) is Role.NONE


def test_strangers_may_nothing_and_a_refusal_is_no_permission(fake: FakeGitHub) -> None:
    assert call(fake, lambda github: github.permission(REPO, "nobody")) is Role.NONE
    fake.on("GET", f"{PATH}/collaborators/mona/permission", said(403, "Must have push access"))
    with pytest.raises(Forbidden):
        call(fake, lambda github: github.permission(REPO, "mona"))


def fetch(fake: FakeGitHub, destination: Path, max_bytes: int = 1_000_000) -> int:
    return call(fake, lambda github: github.tarball(REPO, A, destination, max_bytes))


def test_a_tarball_follows_githubs_redirection_without_the_token(fake: FakeGitHub, tmp_path: Path) -> None:
    fake.on("GET", TARBALL, httpx.Response(302, headers={"location": CODELOAD + "?token=signed"}))
    fake.on("GET", httpx.URL(CODELOAD).path, httpx.Response(200, content=b"tar" * 1000))
    assert fetch(fake, tmp_path / "code.tar.gz") == 3000
    assert (tmp_path / "code.tar.gz").read_bytes() == b"tar" * 1000
    asked, sent_on = fake.requests[-2:]
    assert asked.headers["authorization"].startswith("token ghs_")
    assert (sent_on.url.host, "authorization" in sent_on.headers) == ("codeload.example", False)
    assert list(tmp_path.iterdir()) == [tmp_path / "code.tar.gz"]


def test_the_token_does_not_come_back_after_a_detour(
    fake: FakeGitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.unit.github.fake.complaints", lambda _: [])  # a call without a token is the point here
    fake.on("GET", TARBALL, httpx.Response(302, headers={"location": CODELOAD}))
    fake.on("GET", httpx.URL(CODELOAD).path, httpx.Response(302, headers={"location": f"https://api.example{PATH}"}))
    with pytest.raises(Unauthorized):
        fetch(fake, tmp_path / "code.tar.gz")
    assert "authorization" not in fake.requests[-1].headers


def test_an_enterprise_server_that_redirects_to_itself_gets_the_token(fake: FakeGitHub, tmp_path: Path) -> None:
    fake.on("GET", TARBALL, httpx.Response(302, headers={"location": PATH}))
    fake.on("GET", PATH, httpx.Response(200, content=b"tar"))
    assert fetch(fake, tmp_path / "code.tar.gz") == 3
    assert "authorization" in fake.requests[-1].headers


@pytest.mark.parametrize("location", ["http://codeload.example/x", "file:///etc/passwd", "ftp://x/y"])
def test_a_tarball_is_not_fetched_over_less_than_tls(fake: FakeGitHub, tmp_path: Path, location: str) -> None:
    fake.on("GET", TARBALL, httpx.Response(302, headers={"location": location}))
    with pytest.raises(Unavailable, match="not followed"):
        fetch(fake, tmp_path / "code.tar.gz")


def test_a_tarball_above_the_limit_leaves_nothing(fake: FakeGitHub, tmp_path: Path) -> None:
    fake.on("GET", TARBALL, httpx.Response(200, content=b"x" * 2000))
    with pytest.raises(TooLarge, match="1999 bytes"):
        fetch(fake, tmp_path / "code.tar.gz", 1999)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_tarball_leaves_the_old_one(fake: FakeGitHub, tmp_path: Path) -> None:
    (tmp_path / "code.tar.gz").write_bytes(b"old")
    with pytest.raises(Gone):
        fetch(fake, tmp_path / "code.tar.gz")
    assert (tmp_path / "code.tar.gz").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_signed_address_of_a_tarball_is_in_no_message(fake: FakeGitHub, tmp_path: Path) -> None:
    fake.on("GET", TARBALL, httpx.Response(302, headers={"location": CODELOAD + "?token=SIGNED"}))
    fake.on("GET", httpx.URL(CODELOAD).path, said(500, f"no {CODELOAD}?token=SIGNED"))
    with pytest.raises(Unavailable) as caught:
        fetch(fake, tmp_path / "code.tar.gz")
    assert "SIGNED" not in str(caught.value)
