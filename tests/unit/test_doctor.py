"""The doctor's judgements: what is said of which fact, and that nothing secret is."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from ci_bot.doctor import checks, cluster, examine, judge
from ci_bot.doctor.findings import Finding, Level, failed, line, ok, problem, told, warning
from ci_bot.doctor.host import file_system_of
from ci_bot.doctor.judge import Manifest
from ci_bot.github.answers import App, Delivery, Installation
from ci_bot.settings import Settings
from launcher.node_types import NodeFacts

MANIFEST = Manifest({"checks": "write", "contents": "read", "metadata": "read"}, ("push", "check_run"))
GIB = 1 << 30


def app(permissions: dict[str, str], events: tuple[str, ...] = ("push", "check_run")) -> App:
    return App(7, "descent", "Descent", "https://github.example/apps/descent", permissions, events)


def delivery(status_code: int) -> Delivery:
    return Delivery(1, "guid", "push", "", 0.0, status_code, False)


def facts(isolation: str = "bubblewrap", free_gib: float = 100) -> NodeFacts:
    return NodeFacts("host-a", "10.0.0.1", "x", isolation, "no bwrap", 1, int(free_gib * GIB), 1)  # type: ignore[arg-type]


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {finding.what: finding.level for finding in findings}


def test_only_a_problem_fails_the_examination() -> None:
    assert not failed([ok("a", ""), warning("b", "")])
    assert failed([ok("a", ""), problem("b", "")])


def test_a_finding_is_one_line_that_says_what_to_do() -> None:
    assert line(problem("disk", "it is\nfull", "make room")) == "problem  disk         it is full → make room"


def test_no_line_shows_a_secret() -> None:
    shown = line(problem("database", "postgresql://me:hunter22@db and hunter22"), ("hunter22",))
    assert "hunter22" not in shown


def test_an_exception_is_told_by_its_first_line() -> None:
    assert told(ValueError("one\ntwo")) == "one (ValueError)"
    assert told(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize(("mode", "bad"), [(0o700, False), (0o600, False), (0o750, True), (0o604, True)])
def test_what_others_may_open_is_a_problem(mode: int, bad: bool) -> None:
    finding = judge.mode("data dir", "/d", mode, 0o700)
    assert (finding is not None) is bad
    assert finding is None or finding.todo == "chmod 700 /d"


@pytest.mark.parametrize(("free_gib", "level"), [(100, Level.OK), (1.5, Level.WARNING), (0.1, Level.PROBLEM)])
def test_a_disk_that_runs_full_is_said_before_it_is(free_gib: float, level: Level) -> None:
    assert judge.disk("disk", "/d", int(free_gib * GIB)).level is level


def test_sqlite_on_a_shared_file_system_is_a_problem_and_postgresql_beside_one_is_none() -> None:
    found = judge.file_system("nfs4", "/d", sqlite=True)
    assert found is not None
    assert found.level is Level.PROBLEM
    assert judge.file_system("nfs4", "/d", sqlite=False) is None
    assert judge.file_system("ext4", "/d", sqlite=True) is None


def test_the_file_system_of_a_path_is_that_of_the_deepest_mount_around_it(tmp_path: Path) -> None:
    mounts = (
        f"30 22 0:40 / {tmp_path} rw - nfs4 server:/export rw\n"
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        f"31 22 0:41 / {tmp_path}-other rw - tmpfs tmpfs rw\n"
    )
    assert file_system_of(tmp_path / "data", mounts) == "nfs4"
    assert file_system_of(Path("/usr"), mounts) == "ext4"


def test_the_workers_host_and_process_are_named() -> None:
    here = judge.lease("gpu-1-42-abcdef01", 20.0, 10.0, "gpu-1")
    assert (here.level, "process 42" in here.text) == (Level.OK, True)
    there = judge.lease("gpu-1-42-abcdef01", 20.0, 10.0, "web-1")
    assert there.level is Level.WARNING
    assert "shared volume" in there.todo
    assert "no worker" in judge.lease("gpu-1-42-abcdef01", 5.0, 10.0, "gpu-1").text
    assert "no worker" in judge.lease("", 0.0, 10.0, "gpu-1").text


@pytest.mark.parametrize(
    ("setting", "capable", "node_here", "level"),
    [
        ("auto", True, True, Level.OK),
        ("auto", False, True, Level.PROBLEM),
        ("auto", False, False, Level.WARNING),
        ("bubblewrap", False, True, Level.PROBLEM),
        ("none", False, True, Level.WARNING),
        ("none", True, True, Level.WARNING),
    ],
)
def test_isolation_matters_where_commands_run(setting: str, capable: bool, node_here: bool, level: Level) -> None:
    assert judge.isolation(setting, capable, "no bwrap", node_here=node_here).level is level


def test_a_node_that_can_not_enclose_commands_is_a_problem_unless_the_operator_said_none() -> None:
    assert levels(judge.node(facts("none"), "auto")) == {"node host-a": Level.PROBLEM}
    assert levels(judge.node(facts("none"), "none")) == {"node host-a": Level.OK}
    assert levels(judge.node(facts(), "auto")) == {"node host-a": Level.OK}
    assert [finding.level for finding in judge.node(facts(free_gib=0.1), "auto")] == [Level.OK, Level.PROBLEM]


@pytest.mark.parametrize(
    ("ours", "level"), [(1000, Level.OK), (1030, Level.WARNING), (970, Level.WARNING), (1100, Level.PROBLEM)]
)
def test_a_wrong_clock_is_said_before_github_refuses(ours: float, level: Level) -> None:
    assert judge.skew(ours, 1000.0).level is level


def test_the_app_may_do_what_the_manifest_asks_and_no_more() -> None:
    fine = judge.permissions(app({"checks": "write", "contents": "read", "metadata": "read"}), MANIFEST)
    assert levels(fine) == {"permissions": Level.OK, "events": Level.OK}
    less = judge.permissions(app({"checks": "read", "metadata": "read"}, ("push",)), MANIFEST)
    assert [finding.text for finding in less] == ["the App lacks checks, contents", "the App lacks check_run"]
    more = judge.permissions(
        app({"checks": "write", "contents": "write", "metadata": "read", "actions": "read"}), MANIFEST
    )
    assert levels(more)["permissions"] is Level.WARNING
    assert "actions, contents" in more[0].text


def test_an_account_that_did_not_accept_new_permissions_is_named() -> None:
    old = Installation(1, "octo", False, {"checks": "read", "contents": "read", "metadata": "read"})
    asleep = Installation(2, "hub", True, {})
    good = Installation(3, "cat", False, dict(MANIFEST.permissions))
    found = judge.installations([old, asleep, good], app({}), MANIFEST)
    assert [finding.level for finding in found] == [Level.PROBLEM, Level.WARNING, Level.OK]
    assert "octo has not granted checks" in found[0].text
    assert judge.installations([], app({}), MANIFEST)[0].level is Level.WARNING


def test_deliveries_that_do_not_arrive_are_a_problem_only_where_they_are_sent() -> None:
    url = "https://descent.example"
    assert judge.deliveries([delivery(202), delivery(500)], public_url=url, hours=6).level is Level.OK
    refused = judge.deliveries([delivery(401), delivery(202)], public_url=url, hours=6)
    assert refused.level is Level.PROBLEM
    assert "secret" in refused.todo
    assert "401 × 1" in refused.text
    assert judge.deliveries([delivery(0)], public_url="", hours=6).level is Level.OK
    assert judge.deliveries([], public_url=url, hours=6).level is Level.OK


def test_a_rate_limit_that_is_nearly_used_up_is_a_warning() -> None:
    headers = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "4000", "x-ratelimit-reset": "0"}
    fine, short = judge.rate_limit("octo", headers), judge.rate_limit("octo", headers | {"x-ratelimit-remaining": "9"})
    assert fine is not None
    assert short is not None
    assert (fine.level, short.level) == (Level.OK, Level.WARNING)
    assert judge.rate_limit("octo", {}) is None


def named(host: str, address: str, root_id: str) -> NodeFacts:
    return replace(facts(), host=host, address=address, root_id=root_id)


def test_machines_of_their_own_name_and_disk_and_several_nodes_of_one_machine_are_fine() -> None:
    apart = [named("a", "10.0.0.1", "1"), named("b", "10.0.0.2", "2")]
    one_machine = [named("c", "10.0.0.3", "3"), named("c", "10.0.0.3", "4"), named("c", "10.0.0.3", "4")]
    assert judge.identities([*apart, *one_machine]) == []


def test_machines_of_one_name_are_a_warning() -> None:
    (found,) = judge.identities([named("vm", "10.0.0.1", "1"), named("vm", "10.0.0.2", "2")])
    assert (found.level, found.what) == (Level.WARNING, "node vm")
    assert "10.0.0.1, 10.0.0.2" in found.text


def test_a_copied_disk_is_a_warning_whatever_the_machines_are_called() -> None:
    (found,) = judge.identities([named("a", "10.0.0.1", "1" * 32), named("b", "10.0.0.2", "1" * 32)])
    assert found.level is Level.WARNING
    assert found.text == "a (10.0.0.1) and b (10.0.0.2) have the same NODE_DIR, or copies of one (id 11111111)"
    both = judge.identities([named("vm", "10.0.0.1", "1"), named("vm", "10.0.0.2", "1")])
    assert len(both) == 2


def test_a_file_that_can_not_be_used_is_told_without_a_number() -> None:
    assert told(FileNotFoundError(2, "No such file or directory", "/d/descent.db")) == (
        "/d/descent.db: No such file or directory"
    )


def test_disk_and_database_of_no_directory_are_sentences_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "file"
    place.touch()
    kept = {name: check for name, check in checks(Settings(place / "data"), {}).items() if name in ("disk", "database")}
    monkeypatch.setattr("ci_bot.doctor.checks", lambda settings, environ: kept)
    assert asyncio.run(examine({"DATA_DIR": str(place / "data")})) == 1
    said = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[:2] for line in said] == [["problem", "disk"], ["problem", "database"]]
    assert all("Errno" not in line and f"{place / 'data'}" in line and " → " in line for line in said)


def test_a_cluster_where_nobody_listens_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(host: str, port: int) -> None:
        assert (host, port) == ("::1", 6379)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("asyncio.open_connection", refused)
    found = asyncio.run(cluster.ray(Settings(tmp_path, ray_address="[::1]:6379"), {}))
    assert found[-1].text == "[::1]:6379: nobody answers there: Connection refused"
    assert "RAY_ADDRESS" in found[-1].todo
