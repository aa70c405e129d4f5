"""What a command in the sandbox can see and be."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import guardian_client, sandbox
from launcher.sandbox import Mount
from tests.integration.guardian.ground import Attempt


def _said(attempt: Attempt, command: str, **changes: object) -> str:
    attempt.run(command, **changes)
    return attempt.log().decode()


def test_the_probe_proves_the_sandbox() -> None:
    capability = sandbox.probe()
    if not capability.ok:
        pytest.skip(capability.why)
    assert capability.why == ""


def test_the_probe_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    old, busy = tmp_path / "descent-probe-old", tmp_path / "descent-probe-busy"
    for place in (old, busy):
        (place / "inside").mkdir(parents=True)
    os.utime(old, (0, 0))
    capability = sandbox.probe(below=tmp_path)
    assert capability.ok, capability.why
    assert list(tmp_path.iterdir()) == [busy]


def test_the_command_is_nobody_in_particular(enclosed: Attempt) -> None:
    status = _said(enclosed, "id -u; id -g; id -un; grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status")
    uid, gid, name, *fields = status.splitlines()
    assert (uid, gid, name) == (*[{True: "1000", False: "54321"}[enclosed.ground.unprivileged]] * 2, "user")
    found = dict(line.split(":\t") for line in fields)
    assert found["NoNewPrivs"] == "1"
    assert {int(found[name], 16) for name in ("CapEff", "CapPrm", "CapAmb")} == {0}
    if not enclosed.ground.unprivileged:
        assert found["Groups"].split() == []


def test_it_can_not_become_root(enclosed: Attempt) -> None:
    said = _said(
        enclosed, "/usr/bin/python3 -c 'import os; os.setuid(0)'; su -c id; chroot / id; mount -t tmpfs x /tmp"
    )
    assert "uid=0" not in said
    assert said.count("Error") == 1
    assert "must be superuser" in said


def test_it_sees_only_its_own_processes(enclosed: Attempt) -> None:
    numbers = _said(enclosed, "echo /proc/[0-9]*").split()
    assert len(numbers) <= 3
    ended = enclosed.ground.attempt()
    try:
        outcome = ended.run(f"kill -9 {os.getpid()}")
        assert outcome["exit_code"] == 1
    finally:
        ended.clear()


def test_it_can_not_end_or_read_its_init(enclosed: Attempt) -> None:
    ended = enclosed.run("kill -9 1; kill -TERM 1; ls -l /proc/1/fd 2>&1 | head -3; sleep 0.1; exit 9")
    assert ended["exit_code"] == 9


def test_it_sees_the_mounts_and_nothing_else(enclosed: Attempt) -> None:
    secret = enclosed.directory / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o644)
    said = _said(
        enclosed,
        f"ls -A / | tr '\\n' ' '; echo; cat {secret}; ls /home /root /run /tmp /srv; "
        "ls /etc | tr '\\n' ' '; cat /etc/shadow; ls /dev | tr '\\n' ' '",
    )
    top = set(said.splitlines()[0].split())
    assert top <= {
        *("bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "run", "sbin", "sys", "tmp"),
        *("usr", "var", "workspace", *Path(os.path.realpath(sys.base_prefix)).parts[1:2]),
    }
    assert "hunter2" not in said
    assert "shadow: No such file" in said
    assert " kmsg" not in said


def test_only_what_is_meant_to_be_written_can_be(enclosed: Attempt) -> None:
    data = enclosed.directory / "data"
    data.mkdir()
    (data / "file").write_text("kept\n")
    places = "/ /usr /etc /opt /dev /var /data /proc /sys/devices/system"
    said = _said(
        enclosed,
        f"for d in {places}; do touch $d/new 2>/dev/null && echo WROTE $d; done; echo x > /data/file; "
        "echo a > /workspace/new && echo b > /tmp/new && echo c > /dev/shm/new && echo d > /var/tmp/new "
        "&& cat /data/file",
        mounts=(Mount(str(data), "/data"),),
    )
    assert "WROTE" not in said
    assert said.endswith("kept\n")
    assert (data / "file").read_text() == "kept\n"
    assert (enclosed.workspace / "new").read_text() == "a\n"


def test_files_of_the_workspace_belong_to_the_command(enclosed: Attempt) -> None:
    enclosed.run("umask; touch new")
    assert enclosed.log() == b"0022\n"
    owner = os.geteuid() if os.geteuid() else (65534 if enclosed.ground.unprivileged else 54321)
    assert (enclosed.workspace / "new").stat().st_uid == owner


def test_the_host_network_is_there(enclosed: Attempt) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        port = server.getsockname()[1]
        enclosed.start(f"exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(10) == b"hello\n"
        enclosed.end()


def test_names_resolve(enclosed: Attempt) -> None:
    said = _said(enclosed, "hostname; getent hosts $(hostname); getent hosts localhost; getent passwd $(id -u)")
    assert said.startswith("descent\n127.0.1.1")
    assert ":/home/user:" in said


def test_it_starts_as_a_program_expects(attempt: Attempt) -> None:
    said = _said(
        attempt,
        "umask; pwd; ulimit -c; ulimit -n; nice; readlink /proc/self/fd/0; grep -E '^Sig(Blk|Ign)' /proc/self/status",
    )
    mask, cwd, core, files, nice, stdin, blocked, ignored = said.splitlines()
    assert (mask, cwd, core, nice, stdin) == ("0022", attempt.inside, "0", "0", "/dev/null")
    assert int(files) >= 1024
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & 0x7FFFFFFF == 0


def test_it_inherits_nothing_but_its_three_descriptors(attempt: Attempt) -> None:
    assert _said(attempt, "ls /proc/$$/fd; true").split() == ["0", "1", "2"]


def test_the_environment_is_exactly_the_orders(attempt: Attempt) -> None:
    said = _said(attempt, "env -0 | sort -z | tr '\\0' '\\n'", env={"SECRET": "hunter2"})
    names = {line.partition("=")[0] for line in said.splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "HOME", "SECRET", "DESCENT_ATTEMPT", "DESCENT_PLACE"}


def test_the_environment_is_on_no_command_line_on_no_disk_and_in_no_other_process(attempt: Attempt) -> None:
    attempt.start("echo ready; exec sleep 1000", env={"SECRET": "hunter2-marker"})
    attempt.wait_for_log(b"ready")
    begun = attempt.processes()
    for pid in begun:
        assert b"hunter2-marker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ours = begun if attempt.ground.enclosed else begun[:1]
    for pid in ours:
        assert b"hunter2-marker" not in Path(f"/proc/{pid}/environ").read_bytes()
    found = subprocess.run(["grep", "-r", "hunter2-marker", str(attempt.directory)], capture_output=True)
    assert found.stdout == b""
    assert len(guardian_client.sweep(attempt.key)) >= 1
    guardian_client.stop(attempt.directory, grace_s=0)
    attempt.end()


def test_a_bomb_in_one_sandbox_leaves_room_for_another(enclosed: Attempt) -> None:
    enclosed.start("f() { f | f & }; f; echo ready; sleep 1000", limits=guardian_client.Limits(pids=64))
    other = enclosed.ground.attempt()
    try:
        assert other.run("echo fine")["exit_code"] == 0
    finally:
        other.clear()
    guardian_client.stop(enclosed.directory, grace_s=0)
    enclosed.end()
    assert not enclosed.left()


def test_small_files_of_etc_are_the_hosts_and_can_not_be_changed(enclosed: Attempt) -> None:
    host = sandbox.survey()
    assert host is not None
    assert host.small_files
    paths = " ".join(host.small_files)
    said = _said(
        enclosed, f"sha256sum {paths}; for each in {paths}; do ! (echo x >>$each) 2>/dev/null || echo $each; done"
    )
    there = subprocess.run(["sha256sum", *host.small_files], capture_output=True, text=True, check=True).stdout
    assert said == there


def test_no_descriptor_of_the_guardian_is_left_in_it(enclosed: Attempt) -> None:
    enclosed.start("exec 9</dev/null; ls -l /proc/self/fd; sleep 1000")
    enclosed.wait_for_log(b"9 -> /dev/null")
    first = enclosed.processes()[-1]
    of_pid_1 = {int(path.name): os.readlink(path) for path in Path(f"/proc/{first}/fd").iterdir()}
    assert set(of_pid_1) == {0, 1, 2, 3, 4}
    assert not [place for place in of_pid_1.values() if place.startswith("/etc")]
