"""Reading a repository: files, trees, commits, comparisons, archives."""

import base64
import io
import os
import tarfile

import httpx2 as httpx
import pytest

from tests.integration.local_github.conftest import Place


@pytest.fixture
def filled(place: Place) -> Place:
    (place.clone / "deep").mkdir(parents=True)
    os.symlink("../config.yaml", place.clone / "deep" / "link")
    os.symlink("/etc/passwd", place.clone / "out")
    place.push({"config.yaml": "version: 1\n", "deep/data.bin": b"\x00\xff" * 40, "naïve name.txt": "é"})
    return place


def test_a_file_is_given_as_json_raw_or_object(filled: Place) -> None:
    sha = filled.git("rev-parse", "HEAD")
    body = filled.repo("GET", f"/contents/config.yaml?ref={sha}").json()
    assert base64.b64decode(body["content"]) == b"version: 1\n"
    assert (body["type"], body["size"], body["path"]) == ("file", 11, "config.yaml")
    binary = filled.repo("GET", "/contents/deep/data.bin").json()["content"]
    assert max(len(line) for line in binary.splitlines()) == 60
    raw = {"Accept": "application/vnd.github.raw+json"}
    assert filled.repo("GET", "/contents/deep/data.bin", headers=raw).content == b"\x00\xff" * 40
    assert filled.repo("GET", "/contents/na%C3%AFve%20name.txt", headers=raw).content == "é".encode()
    listed = filled.repo("GET", "/contents", headers={"Accept": "application/vnd.github.object+json"}).json()
    assert [each["name"] for each in listed["entries"]] == ["config.yaml", "deep", "naïve name.txt", "out"]


def test_directories_links_and_what_is_missing(filled: Place) -> None:
    kinds = {each["name"]: each["type"] for each in filled.repo("GET", "/contents/").json()}
    assert kinds == {"config.yaml": "file", "deep": "dir", "naïve name.txt": "file", "out": "symlink"}
    inside = filled.repo("GET", "/contents/deep/link").json()
    assert (inside["type"], base64.b64decode(inside["content"])) == ("file", b"version: 1\n")
    assert filled.repo("GET", "/contents/out").json()["target"] == "/etc/passwd"
    assert filled.repo("GET", "/contents/absent").json()["message"] == "Not Found"
    assert filled.repo("GET", "/contents/config.yaml?ref=absent").status_code == 404
    assert filled.repo("GET", "/contents/deep/%2e%2e/config.yaml").status_code in (400, 404)
    assert filled.repo("GET", "/contents/x?ref=--help").status_code == 404


def test_a_large_file_comes_raw_only(filled: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ci_bot.local_github.contents.LARGEST_IN_JSON", 10)
    body = filled.repo("GET", "/contents/config.yaml").json()
    assert (body["content"], body["encoding"]) == ("", "none")
    monkeypatch.setattr("ci_bot.local_github.contents.LARGEST", 10)
    assert filled.repo("GET", "/contents/config.yaml").json()["errors"][0]["code"] == "too_large"


def test_an_empty_repository_says_so(place: Place) -> None:
    assert place.repo("GET", "/contents/config.yaml").json()["message"] == "This repository is empty."
    assert place.repo("GET", "/commits").status_code == 409


def test_trees_by_name_and_by_sha(filled: Place) -> None:
    flat = filled.repo("GET", "/git/trees/main").json()
    assert [(each["path"], each["type"], each["mode"]) for each in flat["tree"]] == [
        ("config.yaml", "blob", "100644"),
        ("deep", "tree", "040000"),
        ("naïve name.txt", "blob", "100644"),
        ("out", "blob", "120000"),
    ]
    deep = filled.repo("GET", f"/git/trees/{flat['sha']}?recursive=1").json()
    assert "deep/data.bin" in {each["path"] for each in deep["tree"]}
    assert filled.repo("GET", f"/git/trees/{'a' * 40}").status_code == 404


def test_refs_and_branches_by_their_full_name_only(filled: Place) -> None:
    sha = filled.git("rev-parse", "HEAD")
    filled.git("push", "--quiet", "origin", "HEAD:feature/one")
    assert filled.repo("GET", "/git/ref/heads/feature/one").json()["object"] == {
        "type": "commit",
        "sha": sha,
        "url": f"{filled.http.base_url}repos/{filled.full_name}/git/commits/{sha}",
    }
    assert filled.repo("GET", "/git/ref/heads/feature").status_code == 404
    assert filled.repo("GET", "/branches/feature/one").json()["commit"]["sha"] == sha
    missing = filled.repo("GET", "/branches/absent")
    assert (missing.status_code, missing.json()["message"]) == (404, "Branch not found")


def test_commits_one_and_many(filled: Place) -> None:
    first = filled.git("rev-parse", "HEAD")
    second = filled.push({"config.yaml": "version: 2\n"}, message="two")
    one = filled.repo("GET", f"/commits/{second}").json()
    assert (one["commit"]["message"], one["stats"]["total"]) == ("two", 2)
    assert [(each["filename"], each["status"]) for each in one["files"]] == [("config.yaml", "modified")]
    assert one["files"][0]["patch"].startswith("@@ -1 +1 @@")
    assert filled.repo("GET", "/commits/main", headers={"Accept": "application/vnd.github.sha"}).text == second
    assert filled.repo("GET", f"/commits/{'a' * 40}").json()["message"].startswith("No commit found for SHA")
    page = filled.repo("GET", "/commits?per_page=1")
    assert ([each["sha"] for each in page.json()], 'rel="next"' in page.headers["link"]) == ([second], True)
    by_path = filled.repo("GET", "/commits?path=deep").json()
    assert [each["sha"] for each in by_path] == [first]


def test_a_commit_tells_each_file_once_with_its_lines_and_its_patch(filled: Place) -> None:
    filled.push({"a": "".join(f"{line}\n" for line in range(9)), "b.bin": b"\x00a"})
    filled.git("mv", "a", "deep/a b")
    sha = filled.push({"b.bin": b"\x00b", "config.yaml": None, "naïve name.txt": "é\nè"})
    files = {each["filename"]: each for each in filled.repo("GET", f"/commits/{sha}").json()["files"]}
    assert {name: (each["status"], each["additions"], each["deletions"]) for name, each in files.items()} == {
        "b.bin": ("modified", 0, 0),
        "config.yaml": ("removed", 0, 1),
        "deep/a b": ("renamed", 0, 0),
        "naïve name.txt": ("modified", 2, 1),
    }
    assert files["deep/a b"]["previous_filename"] == "a"
    assert files["config.yaml"]["patch"] == "@@ -1 +0,0 @@\n-version: 1"
    assert "patch" not in files["b.bin"]


def test_what_was_read_of_a_commit_needs_no_git_again(filled: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = filled.git("rev-parse", "HEAD")
    paths = [f"/git/trees/{sha}", f"/contents/deep?ref={sha}", f"/tarball/{sha}", f"/commits/{sha}/check-runs"]
    first = [filled.repo("GET", path) for path in paths]
    monkeypatch.setattr("ci_bot.local_github.git.GIT", "/nonexistent")
    again = [filled.repo("GET", path) for path in paths]
    assert [each.status_code for each in again] == [each.status_code for each in first] == [200, 200, 302, 200]
    assert [each.content for each in again] == [each.content for each in first]


def test_a_branch_and_what_came_late_are_read_afresh(filled: Place) -> None:
    raw = {"Accept": "application/vnd.github.raw+json"}
    assert filled.repo("GET", "/contents/config.yaml?ref=main", headers=raw).text == "version: 1\n"
    sha = filled.commit({"config.yaml": "version: 2\n"})
    assert filled.repo("GET", f"/contents/config.yaml?ref={sha}").status_code == 404
    filled.git("push", "--quiet", "origin", "HEAD:main")
    for ref in ("main", sha):
        assert filled.repo("GET", f"/contents/config.yaml?ref={ref}", headers=raw).text == "version: 2\n"


def test_a_new_repository_knows_nothing_of_one_that_had_its_name(filled: Place) -> None:
    sha = filled.git("rev-parse", "HEAD")
    assert filled.repo("GET", f"/contents/config.yaml?ref={sha}").status_code == 200
    filled.control.delete_repository(filled.full_name)
    assert filled.repo("GET", f"/contents/config.yaml?ref={sha}").status_code == 404
    filled.control.create_repository(filled.full_name)
    alone = filled.git("commit-tree", "-m", "alone", "4b825dc642cb6eb9a060e54bf8d69288fbee4904")
    filled.git("push", "--quiet", "origin", f"{alone}:refs/heads/main")
    for path in (f"/contents/config.yaml?ref={sha}", f"/git/trees/{sha}", f"/tarball/{sha}"):
        assert filled.repo("GET", path).status_code == 404


def test_a_comparison_counts_from_the_merge_base(filled: Place) -> None:
    base = filled.git("rev-parse", "HEAD")
    filled.push({"a": "1"})
    filled.git("reset", "--quiet", "--hard", base)
    filled.push({"b": "1\n2\n"}, ref="topic")
    body = filled.repo("GET", "/compare/main...topic").json()
    assert (body["status"], body["ahead_by"], body["behind_by"]) == ("diverged", 1, 1)
    assert body["merge_base_commit"]["sha"] == base
    assert [(each["filename"], each["additions"]) for each in body["files"]] == [("b", 2)]
    assert filled.repo("GET", "/compare/main...main").json()["status"] == "identical"
    assert filled.repo("GET", "/compare/main...absent").status_code == 404
    diff = filled.repo("GET", "/compare/main...topic", headers={"Accept": "application/vnd.github.diff"})
    assert diff.text.startswith("diff --git a/b b/b")


def test_an_archive_is_behind_a_link_to_another_host_good_for_once(filled: Place) -> None:
    sha = filled.git("rev-parse", "HEAD")
    answer = filled.repo("GET", f"/tarball/{sha}")
    link = httpx.URL(answer.headers["location"])
    assert (answer.status_code, link.host, answer.content) == (302, "localhost", b"")
    got = httpx.get(link, trust_env=False)
    with tarfile.open(fileobj=io.BytesIO(got.content)) as archive:
        names = archive.getnames()
    top = f"{filled.owner}-demo-{sha[:7]}"
    assert {top, f"{top}/config.yaml", f"{top}/deep/link"} <= set(names)
    assert all(name.split("/")[0] == top for name in names)
    assert httpx.get(link, trust_env=False).status_code == 404
    late = filled.repo("GET", "/tarball").headers["location"]
    filled.server.clock.ahead_s = 301
    assert httpx.get(late, trust_env=False).status_code == 404


def test_an_unchanged_answer_is_304_and_free(filled: Place) -> None:
    first = filled.repo("GET", "")
    again = filled.repo("GET", "", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["x-ratelimit-used"] == first.headers["x-ratelimit-used"]
