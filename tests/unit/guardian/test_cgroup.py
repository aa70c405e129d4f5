"""Where control groups lie, in every way that kernels mount them."""

import pytest

from launcher.guardian.cgroup import own_directories

V1 = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
    "23 1 0:20 / /sys rw - sysfs sysfs rw\n"
)
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
DOCKER_V1 = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,nosuid master:11 - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("mountinfo", "own", "directories"),
    [
        (
            V1,
            "8:pids:/\n4:memory:/jobs/7\n0::/\n",
            {
                "pids": "/sys/fs/cgroup/pids",
                "memory": "/sys/fs/cgroup/memory/jobs/7",
                "": "/sys/fs/cgroup/unified",
            },
        ),
        (V2, "0::/system.slice/ray.service\n", {"": "/sys/fs/cgroup/system.slice/ray.service"}),
        (V2, "0::/\n", {"": "/sys/fs/cgroup"}),
        (DOCKER_V1, "4:memory:/docker/abc/inner\n", {"memory": "/sys/fs/cgroup/memory/inner"}),
        (DOCKER_V1, "4:memory:/elsewhere\n", {}),
        ("", "0::/\n", {}),
    ],
    ids=["hybrid", "version-2", "root", "docker", "outside", "none"],
)
def test_the_own_group_is_found(mountinfo: str, own: str, directories: dict[str, str]) -> None:
    assert own_directories(mountinfo, own) == directories
