"""The entries of a gzipped tar as git writes it (ustar and pax), read strictly and never more than asked for. Pure."""

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

BLOCK_BYTES = 512
PIECE_BYTES = 1 << 20
PAX_BYTES = 64 << 10
"""The longest pax header we take: a path and a link target are at most 4 KiB each."""
PAX_IN_A_ROW = 4
TRAILER_BYTES = 1 << 20
"""Zeros that may follow the end: tar pads to records of 10 KiB, some writers to more."""

KINDS = {b"0": "file", b"\0": "file", b"5": "directory", b"2": "link"}
REFUSED_KINDS = {
    b"1": "a hard link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"7": "a contiguous file",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"S": "a GNU sparse file",
}


class RefusedArchive(Exception):
    """The archive holds something we do not take."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what = what
        self.why = why

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


class DamagedArchive(Exception):
    """The archive is cut off or corrupt: its transfer failed, whoever wrote it."""


@dataclass(frozen=True)
class Entry:
    """One entry; `name` and `target` are the bytes as written, without the final slash of a directory."""

    name: bytes
    kind: str  # file | directory | link
    size: int
    executable: bool
    modified_at: int
    target: bytes = b""


def shown(name: bytes) -> str:
    """A hostile name for a person: one line, printable, bounded."""
    text = ascii(name[:200].decode("utf-8", "replace"))
    return text if len(name) <= 200 else text + "…"


class Tar:
    """A stream of entries; the bytes of a file are read through `pieces` before the next entry is asked for."""

    def __init__(self, archive: BinaryIO) -> None:
        self._packed = _Counted(archive)
        self._stream = gzip.GzipFile(fileobj=self._packed, mode="rb")
        self.unpacked_bytes = 0
        self._left = 0
        self._padding = 0

    @property
    def packed_bytes(self) -> int:
        """How much of the compressed stream has been read."""
        return self._packed.read_bytes

    def __iter__(self) -> Iterator[Entry]:
        pax: dict[str, bytes] = {}
        headers = 0
        while True:
            for _ in self.pieces():
                pass
            self._exactly(self._padding)
            self._padding = 0
            header = self._exactly(BLOCK_BYTES)
            if header == bytes(BLOCK_BYTES):
                self._end()
                return
            kind, size = _checked(header)
            if kind in {b"x", b"g"}:
                headers += 1
                if headers > PAX_IN_A_ROW:
                    raise RefusedArchive("the archive", "has pax headers without an entry")
                records = _pax(self._exactly_padded(size, PAX_BYTES))
                pax = records if kind == b"x" else pax  # a global header says which commit it is: nothing we need
                continue
            entry = _entry(header, kind, size, pax)
            pax, headers = {}, 0
            self._left = entry.size
            self._padding = -entry.size % BLOCK_BYTES
            yield entry

    def pieces(self) -> Iterator[bytes]:
        """What is left of the current file."""
        while self._left:
            piece = self._exactly(min(self._left, PIECE_BYTES))
            self._left -= len(piece)
            yield piece

    def _exactly_padded(self, size: int, limit: int) -> bytes:
        if size > limit:
            raise RefusedArchive("the archive", f"has a pax header of {size} bytes; at most {limit} are taken")
        content = self._exactly(size)
        self._exactly(-size % BLOCK_BYTES)
        return content

    def _exactly(self, size: int) -> bytes:
        content = self._read(size)
        if len(content) < size:
            raise DamagedArchive("the archive ends early")
        return content

    def _read(self, size: int) -> bytes:
        pieces = []
        while size > 0:
            try:
                piece = self._stream.read(size)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DamagedArchive(f"the archive can't be unpacked: {error}") from error
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        content = b"".join(pieces)
        self.unpacked_bytes += len(content)
        return content

    def _end(self) -> None:
        """Read to the very end: only there does gzip compare its checksum."""
        trailer = self._read(TRAILER_BYTES + 1)
        if len(trailer) > TRAILER_BYTES or any(trailer):
            raise RefusedArchive("the archive", "goes on after its end")


class _Counted:
    """A reader that counts."""

    def __init__(self, archive: BinaryIO) -> None:
        self._archive = archive
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        content = self._archive.read(size)
        self.read_bytes += len(content)
        return content

    def seek(self, offset: int) -> NoReturn:
        raise io.UnsupportedOperation(f"an archive is read once, not from {offset} again")


def _checked(header: bytes) -> tuple[bytes, int]:
    """Type and size of an entry, once the header's checksum is right."""
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if header[257:262] != b"ustar" or _octal(header[148:156], "checksum") != total:
        raise DamagedArchive("a header of the archive is corrupt")
    return header[156:157], _octal(header[124:136], "size")


def _octal(field: bytes, what: str) -> int:
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    if not digits:
        return 0
    if not all(each in b"01234567" for each in digits):
        raise DamagedArchive(f"a {what} in the archive is no number")
    return int(digits, 8)


def _pax(content: bytes) -> dict[str, bytes]:
    """The records "<length> <key>=<value>\\n" of a pax header (POSIX.1-2001, pax Interchange Format)."""
    records: dict[str, bytes] = {}
    while content:
        digits, space, _ = content[:12].partition(b" ")
        if not space or not digits.isdigit():
            raise DamagedArchive("a pax header of the archive is corrupt")
        length = int(digits)
        record, content = content[:length], content[length:]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != length or not equals or record[-1:] != b"\n":
            raise DamagedArchive("a pax header of the archive is corrupt")
        records[key.decode("utf-8", "replace")] = value
    return records


def _entry(header: bytes, kind: bytes, size: int, pax: dict[str, bytes]) -> Entry:
    prefix, name = _text(header[345:500]), _text(header[0:100])
    name = pax.get("path", prefix + b"/" + name if prefix else name)
    if kind not in KINDS:
        what = REFUSED_KINDS.get(kind, f"of the unknown type {kind!r}")
        raise RefusedArchive(shown(name), f"is {what}; only files, directories and symbolic links are taken")
    if any(key.startswith("GNU.sparse") for key in pax):
        raise RefusedArchive(shown(name), "is a GNU sparse file; only plain files are taken")
    if "size" in pax:
        if not pax["size"].isdigit() or len(pax["size"]) > 20:
            raise DamagedArchive("a size in the archive is no number")
        size = int(pax["size"])
    directory = KINDS[kind] == "directory"
    if KINDS[kind] != "file" and size:
        raise RefusedArchive(shown(name), f"is no file and yet has {size} bytes")
    return Entry(
        name=name[:-1] if directory and name.endswith(b"/") else name,
        kind=KINDS[kind],
        size=size,
        executable=bool(_octal(header[100:108], "mode") & 0o100),
        modified_at=_octal(header[136:148], "time"),
        target=pax.get("linkpath", _text(header[157:257])),
    )


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
