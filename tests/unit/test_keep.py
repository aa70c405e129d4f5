"""What is kept of attempts, and what of it the next one gets back."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from launcher.keep import FULL_BYTES, NO_ROOM, ArtifactStore, Keep, artifacts_so_far


def stored(root: Path, *attempts: tuple[bool, Mapping[str, bytes]], node: str = "worker-0") -> list[ArtifactStore]:
    """The stores of attempts 1, 2, …: whether they are whole, and their files."""
    stores = []
    for number, (whole, files) in enumerate(attempts, 1):
        store = Keep(root).artifacts(7, number, node)
        for path, data in files.items():
            with store.receive(path, len(data)) as file:
                file.write(data)
        if whole:
            store.seal()
        stores.append(Keep(root).artifacts(7, number, node))
    return stores


def so_far(stores: list[ArtifactStore]) -> dict[str, bytes]:
    return {file.path: store.read(file.path, 0, 100)[0] for store, file in artifacts_so_far(stores)}


def test_what_an_attempt_removed_does_not_come_back_once_it_was_stored_whole(tmp_path: Path) -> None:
    assert so_far(stored(tmp_path, (True, {"a": b"1", "b": b"1"}), (True, {"b": b"2"}))) == {"b": b"2"}
    assert so_far(stored(tmp_path / "none", (True, {"a": b"1"}), (True, {}))) == {}


def test_what_is_half_stored_replaces_and_does_not_hide(tmp_path: Path) -> None:
    attempts = [(True, {"a": b"1"}), (False, {"b": b"2"}), (False, {"a": b"3"}), (False, {})]
    assert so_far(stored(tmp_path, *attempts)) == {"a": b"3", "b": b"2"}


def test_where_no_attempt_was_stored_whole_it_is_all_that_there_is(tmp_path: Path) -> None:
    assert so_far(stored(tmp_path, (False, {"a": b"1"}), (False, {"b": b"2"}))) == {"a": b"1", "b": b"2"}
    assert so_far([]) == {}


def test_a_file_that_became_a_directory_or_the_other_way_about_is_what_it_was_last(tmp_path: Path) -> None:
    attempts = [(True, {"a": b"1", "d/x": b"1", "d/y": b"1"}), (False, {"a/b": b"2", "d": b"2"})]
    assert so_far(stored(tmp_path, *attempts)) == {"a/b": b"2", "d": b"2"}


@pytest.mark.parametrize("node", ["", "worker-0"])
def test_what_is_noted_of_artifacts_is_none_itself(tmp_path: Path, node: str) -> None:
    (store,) = stored(tmp_path, (True, {"a": b"1"}), node=node)
    half = store.receive("b", 5)
    half.__enter__()  # and the worker dies
    assert [Path(file.path).name for file in Keep(tmp_path).artifacts(7, 1).files()] == ["a"]


def test_a_piece_for_which_there_is_no_room_any_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, free_bytes = Keep(tmp_path), [FULL_BYTES + 10]
    monkeypatch.setattr(keep, "free_bytes", lambda: free_bytes[0])
    store = keep.artifacts(7, 1)

    def receive() -> None:
        with store.receive("a", 10) as file:
            file.write(b"12345")
            free_bytes[0] = FULL_BYTES  # others write to it meanwhile
            file.write(b"67890")

    with pytest.raises(OSError, match="no room for 'a'") as caught:
        receive()
    assert caught.value.errno in NO_ROOM
    assert store.files() == []


def test_what_is_discarded_leaves_the_other_nodes_artifacts(tmp_path: Path) -> None:
    (first,) = stored(tmp_path, (True, {"a": b"1"}), node="worker-0")
    (second,) = stored(tmp_path, (True, {"a": b"2"}), node="worker-1")
    first.discard()
    first.discard()
    assert (first.files(), first.is_whole) == ([], False)
    assert (len(second.files()), second.is_whole) == (1, True)
