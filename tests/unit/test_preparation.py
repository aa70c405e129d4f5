"""Who owns an attempt's files, and which GPUs it sees."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.gpus import Gpu, devices, survey, visible
from launcher.node_types import Document, NodeError, PrepareOrder, StartOrder
from launcher.preparation import Site, guardian_order, owner_uid, write_generated
from launcher.sandbox import SandboxOrder

GPUS = tuple(Gpu(minor=str(3 - number), uuid=f"GPU-{number}") for number in range(4))


@given(st.text(max_size=50))
def test_a_uid_is_never_one_of_an_account(storage_key: str) -> None:
    assert 1_000_000 <= owner_uid(storage_key) < 2**31


@given(st.integers(0, 999_999_999), st.integers(0, 999_999_999))
def test_two_repositories_have_two_uids(one: int, other: int) -> None:
    assert (owner_uid(str(one)) == owner_uid(str(other))) == (one == other)


@given(st.integers(0, 2**40), st.text("abcdefgh-", min_size=1))
def test_a_fork_never_has_the_uid_of_a_repository(repository: int, key: str) -> None:
    assert owner_uid(str(repository)) != owner_uid(key)


def test_an_untrusted_attempt_shares_no_directory() -> None:
    site, attempt = Site(Path("/node"), Path("/shared"), {}), Path("/node/attempts/k")
    trusted = site.directories(attempt, PrepareOrder("c", "1", True, "bubblewrap"))
    assert (trusted.storage, trusted.cache) == (Path("/shared/1"), Path("/node/caches/1"))
    untrusted = site.directories(attempt, PrepareOrder("c", "1", False, "bubblewrap"))
    assert (untrusted.storage, untrusted.cache) == (attempt / "storage", attempt / "cache")


def test_no_gpu_means_no_device() -> None:
    assert devices((), GPUS) == ()


def test_devices_are_those_of_the_given_gpus() -> None:
    assert devices(("0", "2"), GPUS)[:3] == ("/dev/nvidia3", "/dev/nvidia1", "/dev/nvidiactl")
    assert devices(("GPU-1",), GPUS)[0] == "/dev/nvidia2"


def test_some_of_the_gpus_are_named_so_that_no_numbering_matters() -> None:
    assert visible(("1", "2"), GPUS) == ("GPU-1", "GPU-2")


def test_all_of_the_gpus_keep_their_numbers() -> None:
    assert visible(("0", "1", "2", "3"), GPUS) == ("0", "1", "2", "3")


def test_gpus_that_the_host_does_not_know_keep_their_ids() -> None:
    assert visible(("1", "3"), ()) == ("1", "3")
    assert devices(("1", "3"), ()) == ()


def test_gpus_are_read_in_bus_order(tmp_path: Path) -> None:
    for bus, minor in (("0000:81:00.0", 0), ("0000:07:00.0", 1)):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(
            f"Model: \t\t NVIDIA X\nGPU UUID: \t GPU-{minor}\nBus Location: \t {bus}\nDevice Minor: \t {minor}\n"
        )
    assert survey(tmp_path) == (Gpu("1", "GPU-1"), Gpu("0", "GPU-0"))
    assert survey(tmp_path / "none") == ()


def order(**fields: object) -> StartOrder:
    known = {"command": "true", "env": {}, "gpu_ids": (), "isolation": "bubblewrap", "memory_bytes": None}
    more = {"disk_bytes": None, "log_max_bytes": 1, "grace_s": 1, "lease_s": 1}
    return StartOrder(**{**known, **more, **fields})


def sandbox_of(**fields: object) -> SandboxOrder:
    prepared = PrepareOrder("c", "1", True, "bubblewrap")
    found = guardian_order(Path("/node/attempts/exp-1-a1-n0"), prepared, order(**fields), Site(Path("/node"), None, {}))
    assert found.sandbox is not None
    return found.sandbox


def test_a_sandbox_has_the_host_name_and_the_hosts_of_its_order() -> None:
    assert (sandbox_of().hostname, sandbox_of().hosts) == ("exp-1-a1-n0", ())
    named = sandbox_of(document=Document("worker-0", (("10.0.0.1", "worker-0"),)))
    assert (named.hostname, named.hosts) == ("worker-0", (("10.0.0.1", "worker-0"),))


def test_a_host_that_is_none_is_said() -> None:
    with pytest.raises(NodeError, match="is no host name"):
        sandbox_of(document=Document(hosts=(("10.0.0.1", "a\nb"),)))


def test_generated_files_are_written_anew_and_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "generated").mkdir()
    for text in ("one", "two"):
        write_generated(tmp_path, {"hostfile": text, "x.json": "{}"})
    assert (tmp_path / "generated/hostfile").read_text() == "two"
    assert (tmp_path / "generated/hostfile").stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/x", "a\0b", "-x", "x" * 101])
def test_a_generated_file_has_a_plain_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "generated").mkdir()
    with pytest.raises(NodeError, match="is no plain name"):
        write_generated(tmp_path, {name: ""})
    assert not list((tmp_path / "generated").iterdir())
