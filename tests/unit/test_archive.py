"""Archives: what GitHub sends is taken whole, what nobody should send is refused whole."""

import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.archive import DEFAULT_LIMITS, DamagedArchive, Limits, RefusedArchive, check_link, extract, missing, split
from launcher.tar import Entry, shown


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mtime = 1_700_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def archive(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=format, pax_headers={"comment": "a" * 40}) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    packed.seek(0)
    return packed


def assert_refused(packed: io.BytesIO, place: Path, match: str, limits: Limits = DEFAULT_LIMITS) -> None:
    with pytest.raises(RefusedArchive, match=match):
        extract(packed, place / "tree", limits)
    assert list(place.iterdir()) == []


def test_an_archive_by_git_is_taken_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "src" / ("long" * 40)).mkdir(parents=True)
    (source / "train.py").write_text("print(1)\n")
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "src" / ("long" * 40) / ("name" * 30)).write_bytes(b"\0" * 5000)
    (source / "src" / "größe ✓.txt").write_text("x")
    (source / "latest").symlink_to("src/größe ✓.txt")
    (source / "src" / "up").symlink_to("../train.py")
    (source / "empty").touch()
    environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    person = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*person, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=source, env=environment, check=True)
    packed = subprocess.run(
        ["git", "archive", "--format=tar.gz", "--prefix=o-r-abc/", "HEAD"],
        cwd=source,
        env=environment,
        check=True,
        capture_output=True,
    ).stdout
    extracted = extract(io.BytesIO(packed), tmp_path / "tree")
    tree = tmp_path / "tree"
    assert (extracted.files, extracted.submodules, extracted.lfs) == (7, False, False)
    assert extracted.bytes == sum(p.stat().st_size for p in tree.rglob("*") if p.is_file() and not p.is_symlink())
    assert (tree / "train.py").read_text() == "print(1)\n"
    assert (tree / "src" / ("long" * 40) / ("name" * 30)).read_bytes() == b"\0" * 5000
    assert os.readlink(tree / "latest") == "src/größe ✓.txt"
    assert (tree / "src/up").read_text() == "print(1)\n"
    assert tree.joinpath("run.sh").stat().st_mode & 0o777 == 0o755
    assert tree.joinpath("train.py").stat().st_mode & 0o777 == 0o644
    assert tree.joinpath("src").stat().st_mode & 0o777 == 0o755


def test_times_of_change_are_kept(tmp_path: Path) -> None:
    extract(archive(folder("top"), member("top/a", b"x")), tmp_path / "tree")
    assert (tmp_path / "tree/a").stat().st_mtime == 1_700_000_000


def test_modes_are_reduced_to_the_execute_bit(tmp_path: Path) -> None:
    extract(archive(member("top/a", b"x", mode=0o6777), member("top/b", b"x", mode=0o4666)), tmp_path / "tree")
    assert (tmp_path / "tree/a").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "tree/b").stat().st_mode & 0o7777 == 0o644


def test_submodules_and_lfs_pointers_are_noticed(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    extracted = extract(archive(member("top/.gitmodules", b"[x]"), member("top/model.bin", pointer)), tmp_path / "tree")
    assert extracted.submodules
    assert extracted.lfs


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/passwd", "absolute"),
        ("top/../../etc/passwd", "leaves"),
        ("../top/a", "leaves"),
        ("top//a", "simplest"),
        ("top/./a", "simplest"),
        ("top/a/", "simplest"),
        ("top/" + "x" * 256, "longer than 255 bytes"),
        ("top/" + "é" * 128, "longer than 255 bytes"),
        ("top/" + "x/" * 70 + "x", "deep"),
        ("top/" + ("x" * 200 + "/") * 15 + "x", "longer than 2048 bytes"),
        ("top/a\0b", "no file name"),
        ("loose", "outside the one top folder"),
        ("other/a", "outside the one top folder"),
    ],
)
def test_a_name_that_is_not_plainly_below_the_top_folder_is_refused(name: str, why: str, tmp_path: Path) -> None:
    evil = member("top/x", b"x", pax_headers={"path": name})
    assert_refused(archive(folder("top"), evil), tmp_path, why)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (tarfile.CONTTYPE, "a contiguous file"),
        (b"V", "unknown type"),
    ],
)
def test_what_is_no_file_directory_or_symbolic_link_is_refused(kind: bytes, why: str, tmp_path: Path) -> None:
    assert_refused(archive(folder("top"), member("top/x", type=kind, linkname="y")), tmp_path, why)


def test_gnu_long_names_are_refused(tmp_path: Path) -> None:
    assert_refused(archive(member("top/" + "x" * 200), format=tarfile.GNU_FORMAT), tmp_path, "GNU long name")


@pytest.mark.parametrize("target", ["a", "sub/a", "./a", "sub", "missing", ".", "sub/link/x"])
def test_a_relative_link_inside_the_tree_is_kept(target: str, tmp_path: Path) -> None:
    extract(archive(folder("top"), link("top/link", target), member("top/a", b"x")), tmp_path / "tree")
    assert os.readlink(tmp_path / "tree/link") == target


@pytest.mark.parametrize("target", ["..", "../x", "/etc/passwd", "sub/../../x", "a/..", "../../../../etc", "x" * 4096])
def test_a_link_that_could_lead_out_is_refused(target: str, tmp_path: Path) -> None:
    assert_refused(archive(folder("top"), link("top/link", target)), tmp_path, "only relative links inside")


def test_a_lone_file_is_refused(tmp_path: Path) -> None:
    assert_refused(archive(member("loose", b"x")), tmp_path, "beside the top folder")


def test_a_link_whose_climb_ends_at_the_top_is_kept(tmp_path: Path) -> None:
    extract(archive(link("top/a/b/link", "../../x")), tmp_path / "tree")
    assert (tmp_path / "tree/a/b/link").is_symlink()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    place = tmp_path / "place"
    place.mkdir()
    assert_refused(archive(link("top/sub", "."), member("top/sub/a", b"x")), place, "which is no directory")
    assert_refused(archive(member("top/sub/a", b"x"), link("top/sub", ".")), place, "appears twice")


@pytest.mark.parametrize(
    "twice",
    [
        (member("top/a", b"x"), member("top/a", b"y")),
        (member("top/a", b"x"), folder("top/a")),
        (folder("top/a"), member("top/a", b"x")),
        (link("top/a", "b"), member("top/a", b"x")),
        (member("top/a", b"x"), link("top/a", "b")),
        (link("top/a", "b"), folder("top/a")),
    ],
)
def test_a_name_that_appears_twice_is_refused(twice: tuple[tuple[tarfile.TarInfo, bytes], ...], tmp_path: Path) -> None:
    assert_refused(archive(*twice), tmp_path, "appears twice")


def test_a_directory_may_be_named_again(tmp_path: Path) -> None:
    extract(archive(member("top/a/b", b"x"), folder("top/a"), folder("top/a/"), folder("top")), tmp_path / "tree")
    assert (tmp_path / "tree/a/b").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(entries=2), "more than 2 entries"),
        (Limits(file_bytes=10), "at most 10 are taken"),
        (Limits(total_bytes=150), "more than 150 bytes"),
    ],
)
def test_a_tree_over_a_limit_is_refused(limits: Limits, why: str, tmp_path: Path) -> None:
    packed = archive(folder("top"), member("top/a", b"x" * 100), member("top/b", b"x" * 100))
    assert_refused(packed, tmp_path, why, limits)
    packed.seek(0)
    with pytest.raises(RefusedArchive, match=why):
        missing(packed, limits)


def test_a_bomb_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    bomb, limits = archive(member("top/a", bytes(8 << 20))), Limits(ratio=20, ratio_from_bytes=1 << 20)
    assert_refused(bomb, tmp_path, "more than 20 times", limits)
    bomb.seek(0)
    with pytest.raises(RefusedArchive, match="more than 20 times"):
        missing(bomb, limits)


def test_a_bomb_of_empty_entries_is_refused(tmp_path: Path) -> None:
    bomb = archive(*(member(f"top/{number}") for number in range(3000)))
    assert_refused(bomb, tmp_path, "more than 2 times", Limits(ratio=2, ratio_from_bytes=1 << 20))


def test_a_size_that_lies_is_refused_unread(tmp_path: Path) -> None:
    evil = member("top/x", b"x", pax_headers={"size": str(1 << 60)})
    assert_refused(archive(evil), tmp_path, "at most")


def test_a_huge_pax_header_is_refused(tmp_path: Path) -> None:
    evil = member("top/x", b"x", pax_headers={"comment": "x" * (1 << 20)})
    assert_refused(archive(evil), tmp_path, "pax header")


def test_endless_pax_headers_are_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    head = gzip.decompress(archive(member("top/x")).getvalue())[:1024]  # the global header alone
    with gzip.open(packed, "wb") as out:
        out.write(head * 100)
    assert_refused(io.BytesIO(packed.getvalue()), tmp_path, "without an entry")


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    assert_refused(archive(), tmp_path, "is empty")


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    content = gzip.decompress(archive(member("top/a", b"x")).getvalue())
    assert_refused(io.BytesIO(gzip.compress(content + b"x" * 512)), tmp_path, "goes on after its end")


def test_an_archive_that_is_cut_off_is_damaged_and_leaves_nothing(tmp_path: Path) -> None:
    whole = archive(folder("top"), member("top/a", os.urandom(2000)), member("top/b", b"y")).getvalue()
    for length in range(0, len(whole), 97):
        with pytest.raises(DamagedArchive):
            extract(io.BytesIO(whole[:length]), tmp_path / "tree")
        assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_is_noticed_at_the_end(tmp_path: Path) -> None:
    whole = bytearray(archive(member("top/a", os.urandom(2000))).getvalue())
    whole[len(whole) // 2] ^= 1
    with pytest.raises((DamagedArchive, RefusedArchive)):
        extract(io.BytesIO(bytes(whole)), tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_archive_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(DamagedArchive):
        extract(io.BytesIO(b"<html>not found</html>"), tmp_path / "tree")


def test_the_leftover_of_an_interrupted_extraction_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "tree.tree/old").mkdir(parents=True)
    (tmp_path / "tree.tree").chmod(0o555)
    extract(archive(member("top/a", b"x")), tmp_path / "tree")
    assert [path.name for path in (tmp_path / "tree").iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_a_hostile_name_is_shown_on_one_printable_line() -> None:
    text = shown(b"a\n\x1b[31m\xff" + b"x" * 5000)
    assert text.isprintable()
    assert len(text) < 300


NAMES = st.one_of(
    st.lists(st.sampled_from(["..", ".", "", "a", "b", "é", "x" * 300, "a\0b", "~", "-rf"]), max_size=6).map("/".join),
    st.text(max_size=20),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@given(NAMES)
def test_a_name_that_passes_stays_below_any_directory(name: bytes) -> None:
    try:
        parts = split(name, Limits())
    except RefusedArchive:
        return
    assert b"/".join(parts) == name
    assert os.path.normpath(b"/place/" + name) == b"/place/" + name


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
        st.lists(st.sampled_from(["..", ".", "a", "b", "c"]), min_size=1, max_size=5).map("/".join),
        min_size=1,
        max_size=5,
    )
)
def test_no_set_of_links_leads_out_of_the_tree(tmp_path: Path, links: dict[str, str]) -> None:
    place = tmp_path / "place"
    subprocess.run(["rm", "-rf", place], check=True)
    place.mkdir()
    try:
        extract(archive(*(link(f"top/{name}", target) for name, target in links.items())), place / "tree")
    except RefusedArchive:
        return
    for name in links:
        real = os.path.realpath(place / "tree" / name)
        assert real == str(place / "tree") or real.startswith(f"{place}/tree/")


@given(st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=4), NAMES)
def test_a_link_that_passes_climbs_no_higher_than_the_top(path: list[bytes], target: bytes) -> None:
    try:
        check_link(tuple(path), Entry(name=b"x", kind="link", size=0, executable=False, modified_at=0, target=target))
    except RefusedArchive:
        return
    end = os.path.normpath(b"/place/" + b"/".join(path[:-1]) + b"/" + target)
    assert (end + b"/").startswith(b"/place/")
