"""The ground itself: hosts that see only themselves and each other, and that go without a trace."""

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.hosts import Hosts, left, three_hosts
from tests.e2e.stack import wait_for

_ROOT = Path(__file__).parents[2]
_ANOTHER = """
import sys, time
from tests.cluster.hosts import three_hosts
with three_hosts() as hosts:
    host = hosts.each[1]
    host.start("sleep", "1000", environment={}, output=hosts.root / "said", cwd=hosts.root)
    pids = [pid for host in hosts.each for pid in [host.init, *(p.pid for p in host.processes())]]
    print(hosts.root, *pids, flush=True)
    time.sleep(1000)
"""


def test_each_host_has_a_name_an_address_and_processes_of_its_own(hosts: Hosts) -> None:
    a, b, _ = hosts.each
    assert b.run("hostname").stdout.strip() == "host-b"
    assert a.run("cat", "/proc/1/comm").stdout.strip() == "cat"
    sleeping = b.start(
        "unshare", "--pid", "--fork", "sleep", "1000", environment=dict(os.environ), output=_said(hosts), cwd=hosts.root
    )
    wait_for(lambda: len(b.processes()) == 2, 10)
    assert {process.comm for process in b.processes()} == {"unshare", "sleep"}  # a namespace within it, too
    assert a.processes() == []
    assert b.outer(next(p.inner for p in b.processes() if p.pid == sleeping.pid)) == sleeping.pid


def test_hosts_reach_each_other_until_a_cable_is_pulled_and_again_once_it_is_back(hosts: Hosts) -> None:
    a, b, c = hosts.each
    listen = "import socket; s = socket.create_server(('', 7000)); [s.accept() for _ in range(9)]"
    b.start(sys.executable, "-c", listen, environment={}, output=_said(hosts), cwd=hosts.root)
    wait_for(lambda: _reaches(a.run, b.address), 10)
    assert _reaches(c.run, b.address)
    hosts.link_down(b)
    assert not _reaches(a.run, b.address)
    hosts.link_up(b)
    wait_for(lambda: _reaches(a.run, b.address), 10)


def test_who_listens_and_what_was_not_waited_for_is_seen(hosts: Hosts) -> None:
    a, b, _ = hosts.each
    program = (
        "import os, socket, time; s = socket.create_server(('', 7001)); os.fork() or os._exit(0); time.sleep(1000)"
    )
    b.start(sys.executable, "-c", program, environment={}, output=_said(hosts), cwd=hosts.root)
    wait_for(lambda: b.listening() == {7001}, 10)
    wait_for(lambda: len(b.zombies()) == 1, 10)
    assert len(b.processes()) == 1
    assert (a.listening(), a.zombies()) == (set(), [])


def test_nothing_is_left_of_hosts_whose_maker_was_killed(able: None) -> None:
    maker = subprocess.Popen([sys.executable, "-c", _ANOTHER], cwd=_ROOT, stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    root, *pids = maker.stdout.readline().split()
    assert len(pids) == 4
    maker.kill()
    maker.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 10)
    Path(root, "said").unlink()
    wait_for(lambda: not [text for text in left(Path(root), set()) if text != root], 10)
    subprocess.run(["rm", "-r", root], check=True)


def test_what_runs_on_a_host_ends_with_it(able: None) -> None:
    with three_hosts() as hosts:
        stubborn = "trap '' TERM HUP INT; while :; do sleep 0.1; done"
        running = hosts.each[2].start(
            "setsid", "sh", "-c", stubborn, environment=dict(os.environ), output=_said(hosts), cwd=hosts.root
        )
        pid = running.pid
    assert not Path(f"/proc/{pid}").exists()
    assert running.wait(10) != 0


def _said(hosts: Hosts) -> Path:
    return hosts.root / "said"


def _reaches(run: object, address: str) -> bool:
    connect = f"import socket; socket.create_connection(('{address}', 7000), timeout=1)"
    return bool(run(sys.executable, "-c", connect).returncode == 0)  # type: ignore[operator]
