"""An order becomes bubblewrap's command line."""

from dataclasses import replace

import pytest

from launcher.sandbox import INIT, Host, Mount, SandboxOrder, bwrap_argv, copied_files, etc_files, init_argv

HOST = Host(
    bwrap="/usr/bin/bwrap",
    root=True,
    links=(("/bin", "usr/bin"), ("/lib64", "usr/lib64")),
    interpreter="/home/ops/python/bin/python3.11",
    prefix="/home/ops/python",
    init="/venv/launcher/guardian/init.py",
)
ORDER = SandboxOrder(
    mounts=(Mount("/n/workspace", "/workspace", writable=True), Mount("/n/data", "/data/mnist")), uid=4000, gid=4001
)
COPIES = {"/etc/services": 130, "/etc/ssl/openssl.cnf": 131, "/etc/passwd": 132}


def options(argv: list[str]) -> list[tuple[str, ...]]:
    """The command line, an option with its arguments each."""
    found: list[list[str]] = []
    for word in argv[1:]:
        if word.startswith("--"):
            found.append([])
        found[-1].append(word)
    return [tuple(option) for option in found]


def bound(argv: list[str]) -> dict[str, str]:
    """Which option brings each path in."""
    return {o[-1]: o[0] for o in options(argv) if "bind" in o[0] or o[0] in {"--tmpfs", "--proc", "--dev", "--symlink"}}


def test_the_namespaces_are_its_own_and_end_with_us() -> None:
    argv = bwrap_argv(ORDER, HOST, COPIES)
    assert {"--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--as-pid-1", "--clearenv"} <= set(
        argv
    )
    assert "--unshare-net" not in argv


def test_as_root_pid_1_may_change_its_user_and_nothing_else() -> None:
    found = options(bwrap_argv(ORDER, HOST, COPIES))
    assert [o[1] for o in found if o[0] == "--cap-drop"] == ["ALL"]
    assert [o[1] for o in found if o[0] == "--cap-add"] == ["CAP_SETUID", "CAP_SETGID"]
    assert ("--unshare-user",) not in found


def test_without_root_the_user_is_mapped() -> None:
    host = Host(**{**HOST.__dict__, "root": False})
    found = options(bwrap_argv(ORDER, host, COPIES))
    assert {("--unshare-user",), ("--uid", "4000"), ("--gid", "4001")} <= set(found)
    assert not [o for o in found if o[0].startswith("--cap")]


def test_only_ordered_mounts_can_be_written() -> None:
    found = options(bwrap_argv(ORDER, HOST, COPIES))
    assert [o for o in found if o[0] == "--bind"] == [("--bind", "/n/workspace", "/workspace")]
    assert found[-3:] == [("--remount-ro", "/dev"), ("--remount-ro", "/"), ("--chdir", "/")]


def test_what_comes_in_is_a_list() -> None:
    paths = set(bound(bwrap_argv(ORDER, HOST, COPIES)))
    assert {path for path in paths if not path.startswith("/etc/")} == {
        *("/usr", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
        *("/sys/devices/system", "/proc", "/dev", "/dev/shm", "/tmp", "/run", "/var/tmp", "/var/run"),
        *(INIT, "/home/ops/python", "/workspace", "/data/mnist"),
    }
    assert "/etc" not in paths
    assert not {"/etc/shadow", "/etc/sudoers", "/etc/environment", "/etc/gitconfig", "/etc/ssl/private"} & paths


def test_small_files_are_copied_and_not_mounted() -> None:
    host = replace(HOST, small_files=("/etc/services", "/etc/ssl/openssl.cnf"))
    copied = copied_files(ORDER, host, "/n/etc")
    assert {"/etc/services": "/etc/services", "/etc/passwd": "/n/etc/passwd"}.items() <= copied.items()
    argv = bwrap_argv(ORDER, host, COPIES)
    for path, descriptor in COPIES.items():
        at = argv.index(path)
        above = path.rpartition("/")[0]
        assert argv[at - 6 : at] == ["--dir", above, "--perms", "0644", "--file", str(descriptor)]
        assert path not in bound(argv)
    assert bound(argv)["/etc/ssl/certs"] == "--ro-bind-try"


def test_links_stay_links() -> None:
    found = options(bwrap_argv(ORDER, HOST, COPIES))
    assert ("--symlink", "usr/bin", "/bin") in found
    assert ("--ro-bind-try", "/sbin", "/sbin") in found


def test_later_mounts_lie_on_earlier_ones() -> None:
    argv = bwrap_argv(ORDER, Host(**{**HOST.__dict__, "prefix": "/tmp/python"}), COPIES)
    order = [o[-1] for o in options(argv) if "bind" in o[0] or o[0] == "--tmpfs"]
    assert order.index("/tmp") < order.index("/tmp/python") < order.index("/workspace") < order.index("/data/mnist")
    assert order.index("/run") < order.index(INIT)


def test_an_interpreter_of_the_system_needs_no_mount() -> None:
    host = Host(**{**HOST.__dict__, "prefix": "/usr"})
    found = options(bwrap_argv(ORDER, host, COPIES))
    assert ("--ro-bind", "/usr", "/usr") not in found
    assert init_argv(host)[-1] == INIT


def test_devices_bring_what_their_libraries_read() -> None:
    order = SandboxOrder(mounts=(), devices=("/dev/nvidia1", "/dev/nvidiactl"))
    found = bound(bwrap_argv(order, HOST, COPIES))
    assert {path: kind for path, kind in found.items() if "nvidia" in path} == {
        "/dev/nvidia1": "--dev-bind-try",
        "/dev/nvidiactl": "--dev-bind-try",
    }
    assert {"/sys/devices", "/sys/bus", "/sys/class"} <= set(found)


def test_file_systems_in_memory_have_the_commands_limit() -> None:
    argv = bwrap_argv(SandboxOrder(mounts=(), memory_bytes=1 << 30), HOST, COPIES)
    for place in ("/tmp", "/dev/shm"):
        at = argv.index(place, argv.index("--dev"))
        assert argv[at - 5 : at] == ["--perms", "1777", "--size", str(1 << 30), "--tmpfs"]


@pytest.mark.parametrize("ids", [{"uid": 0}, {"gid": 0}, {"uid": -1}])
def test_nobody_is_root(ids: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="uid and gid must be at least 1"):
        SandboxOrder(mounts=(), **ids)


def test_its_own_name_and_user_resolve() -> None:
    files = etc_files(ORDER, "127.0.0.1 localhost\n")
    assert "user:x:4000:4001:user:/home/user:/bin/bash" in files["passwd"]
    assert files["hosts"] == "127.0.0.1 localhost\n127.0.1.1 descent\n"
    assert etc_files(ORDER, "10.0.0.1 a descent\n")["hosts"] == "10.0.0.1 a descent\n"
    assert etc_files(ORDER, "10.0.0.1 a # descent\n")["hosts"].endswith("127.0.1.1 descent\n")


def test_given_names_resolve_as_given_and_before_the_hosts_own() -> None:
    order = replace(ORDER, hostname="worker-0", hosts=(("10.0.0.1", "worker-0"), ("fd00::2", "worker-1")))
    theirs = "127.0.0.1 localhost\n127.0.1.1 worker-0\n10.9.9.9 other worker-1 # a note\n\n# worker-1\n"
    assert etc_files(order, theirs)["hosts"].splitlines() == [
        "10.0.0.1 worker-0",
        "fd00::2 worker-1",
        "127.0.0.1 localhost",
        "10.9.9.9 other",
        "",
        "# worker-1",
    ]


def test_an_own_name_that_is_not_given_resolves_after_the_given_ones() -> None:
    order = replace(ORDER, hosts=(("10.0.0.2", "worker-1"),))
    assert etc_files(order, "127.0.0.1 localhost\n")["hosts"].splitlines() == [
        "10.0.0.2 worker-1",
        "127.0.0.1 localhost",
        "127.0.1.1 descent",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"hosts": (("10.0.0.1", "a\n6.6.6.6 b"),)},
        {"hosts": (("10.0.0.1 x", "a"),)},
        {"hosts": (("host-a", "a"),)},
        {"hosts": (("10.0.0.1", ""),)},
        {"hostname": "-a"},
        {"hostname": "a b"},
    ],
)
def test_a_name_that_is_more_than_one_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"host name|IP"):
        replace(ORDER, **fields)
