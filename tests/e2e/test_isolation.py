"""What an experiment can reach, and what it can harm: itself."""

import subprocess

import pytest

from launcher.sandbox import probe
from tests.e2e.stack import Repo, Stack, config, wait_for

pytestmark = pytest.mark.skipif(not probe().ok, reason=f"no isolation here: {probe().why}")

SPY = r"""
import os, re, socket, sys, tarfile, urllib.error, urllib.request
out = os.path.join(os.environ["ARTIFACTS_DIR"], "dump")
os.makedirs(out)
with open(f"{out}/environments", "wb") as file:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("environ", "cmdline", "mountinfo"):
            try:
                file.write(open(f"/proc/{pid}/{name}", "rb").read() + b"\n")
            except OSError:
                pass
skip = re.compile(r"^/(usr|opt|lib\w*|bin|sbin|sys|proc|dev|artifacts)(/|$)|/env/lib/")
with open(f"{out}/files", "wb") as file:
    for root, dirs, names in os.walk("/"):
        dirs[:] = [d for d in dirs if not skip.search(os.path.join(root, d))]
        for name in names:
            path = os.path.join(root, name)
            file.write(f"\n== {path}\n".encode())
            try:
                if os.path.getsize(path) < 1 << 20:
                    file.write(open(path, "rb").read())
            except OSError as error:
                file.write(str(error).encode())
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
with open(f"{out}/sockets", "w") as file:
    file.write(open("/proc/net/unix").read())
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in open(table).read().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    for port in sorted(ports):
        for path in ("/", "/experiments/1", "/experiments.json", "/metrics", "/setup"):
            try:
                said = opener.open(f"http://127.0.0.1:{port}{path}", timeout=3)
                answer = f"{said.status} {said.read(100000)!r}"
            except urllib.error.HTTPError as error:
                answer = f"{error.code}"
            except Exception as error:
                answer = f"{type(error).__name__}"
            file.write(f"{port} {path} {answer}\n")
    for path in re.findall(r"@?/\S+", open("/proc/net/unix").read()):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path.replace("@", "\0"))
            file.write(f"connected {path}\n")
        except OSError as error:
            file.write(f"refused {path} {error}\n")
print("dumped", len(ports), "ports")
"""


def test_an_experiment_reaches_no_secret_no_other_repository_and_no_dashboard(repo: Repo, stack: Stack) -> None:
    other = stack.repository("somebody-elses")
    theirs = other.run("echo theirs > /storage/theirs; echo theirs > $ARTIFACTS_DIR/theirs", name="theirs")
    assert other.check(theirs, "descent/theirs", timeout_s=90)["conclusion"] == "success"
    left = [path for path in stack.data_dir.rglob("theirs") if path.read_bytes() == b"theirs\n"]
    assert {path.relative_to(stack.data_dir).parts[0] for path in left} == {"node", "artifacts"}
    sha = repo.push({".descent/config.yaml": config("python spy.py"), "spy.py": SPY})
    check = repo.check(sha, timeout_s=90)
    assert check["conclusion"] == "success", check["output"]
    experiment = repo.experiment(sha)
    assert experiment is not None
    dump = stack.data_dir / "artifacts" / str(experiment.id) / "1" / "dump"
    seen = {path.name: path.read_bytes() for path in dump.iterdir()}
    secrets = {
        "private key": "\n".join(stack.app["pem"].splitlines()[1:3]),
        "webhook secret": stack.app["webhook_secret"],
        "OAuth secret": stack.app["client_secret"],
        "Ray's token": (stack.data_dir / "ray-token").read_text().strip(),
        "dashboard's key": (stack.data_dir / "key").read_text().strip(),
        "database": "SQLite format 3",
        "another's file": "theirs\n",
    }
    for name, secret in secrets.items():
        for where, content in seen.items():
            assert secret.encode() not in content, f"{name} was found in {where}"
    assert b"GITHUB_" not in seen["environments"]
    assert b"RAY_" not in seen["environments"]
    assert b"/descent.db" not in seen["files"]
    port = stack.environment["PORT"]
    answers = [line for line in seen["sockets"].decode().splitlines() if line.startswith(f"{port} ")]
    assert answers
    for answer in answers:
        assert "somebody-elses" not in answer
        assert repo.full_name not in answer
    connected = [line for line in seen["sockets"].decode().splitlines() if line.startswith("connected ")]
    assert not [line for line in connected if str(stack.data_dir) in line or "/r/session" in line]


def test_a_command_that_fills_memory_fails_alone(repo: Repo, stack: Stack) -> None:
    neighbour = stack.repository("neighbour-of-memory").run("sleep 4; echo still here")
    hog = "python -c \"x = [bytearray(b'x' * (1 << 20)) for _ in range(1 << 20)]\""
    check = repo.check(repo.run(hog, worker={"machine-type": "small"}), timeout_s=90)
    assert check["conclusion"] == "failure"
    assert "ut of memory" in check["output"]["title"], check["output"]["title"]
    assert stack.control.wait_check_runs("octo/neighbour-of-memory", neighbour)[0]["conclusion"] == "success"


def test_a_command_that_fills_the_process_table_fails_alone(repo: Repo, stack: Stack) -> None:
    bomb = 'python -c "import os, time\nfor _ in range(100000):\n    if os.fork() == 0: time.sleep(30); os._exit(0)"'
    neighbour = stack.repository("neighbour-of-processes").run("sleep 4; (true) && echo still here")
    check = repo.check(repo.run(bomb), timeout_s=90)
    assert check["conclusion"] == "failure"
    assert stack.control.wait_check_runs("octo/neighbour-of-processes", neighbour)[0]["conclusion"] == "success"


WRITER = """\
echo ready >/storage/ready; n=0
until [ -e /storage/enough ]; do
    head -c 1000000 /dev/urandom >part && cp part "$ARTIFACTS_DIR/part" && cmp part "$ARTIFACTS_DIR/part" || exit 9
    n=$((n + 1))
done
echo "wrote $n times"
"""


def test_a_command_that_fills_the_disk_fails_alone(repo: Repo, stack: Stack) -> None:
    beside = stack.repository("neighbour-of-disk")
    sha = beside.push({".descent/config.yaml": config("sh write.sh"), "write.sh": WRITER})
    storage = stack.data_dir / "node" / "storage" / str(beside.wait(sha, lambda e: True).repository_id)
    wait_for((storage / "ready").exists, 60)
    fill = "python -c \"f = open('big', 'wb')\nwhile True: f.write(b'x' * (1 << 20)); f.flush()\""
    filled = repo.run(fill, worker={"machine-type": "small"})
    check = repo.check(filled, timeout_s=90)
    assert check["conclusion"] == "failure"
    assert "disk" in check["output"]["title"].lower(), check["output"]["title"]
    (storage / "enough").touch()
    assert beside.check(sha)["conclusion"] == "success"
    hog, neighbour = repo.experiment(filled), beside.experiment(sha)
    assert hog is not None
    assert neighbour is not None
    assert {node.host for node in neighbour.held.nodes} == {node.host for node in hog.held.nodes}
    assert (neighbour.progress.attempt, "wrote" in beside.log(neighbour)) == (1, True)
    kept = stack.data_dir / "artifacts" / str(neighbour.id) / "1" / "part"
    assert kept.stat().st_size == 1_000_000


def test_nothing_of_an_experiment_is_left_when_it_has_ended(repo: Repo, stack: Stack) -> None:
    daemon = "(setsid sh -c 'trap \"\" TERM HUP; sleep 987' &) ; sleep 0.5"
    sha = repo.run(daemon)
    assert repo.check(sha)["conclusion"] == "success"
    experiment = repo.experiment(sha)
    assert experiment is not None
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 987" not in shown
    attempts = stack.data_dir / "node" / "attempts"
    wait_for(lambda: not list(attempts.glob(f"exp-{experiment.id}-*")), 10)
