"""One at a time, across the threads and processes of a host."""

import fcntl
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILES = 64


@contextmanager
def locked(directory: Path, kind: str, name: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a named thing; its holder's death frees it.

    Names share a fixed number of files, so that none need ever be removed: two things may wait for each other, but
    nothing may be held while another of the same kind is asked for.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{kind}-{zlib.crc32(name.encode()) % _FILES:02d}"
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
