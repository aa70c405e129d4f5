"""Who owns an attempt's files, and which GPUs it sees."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from launcher.gpus import Gpu, devices, survey, visible
from launcher.node_types import PrepareOrder
from launcher.preparation import Site, owner_uid

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
