"""The directory of a node itself: that it is ours alone, its id, and what another boot left in it."""

import os
import uuid
from contextlib import suppress
from pathlib import Path

from launcher import trees
from launcher.guardian import durable
from launcher.node_types import NodeError
from launcher.state import Cause

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def own(root: Path) -> None:
    """Make sure that nobody else can reach into a directory, which may lie where anybody can make one.

    Raises:
        NodeError: it is somebody else's.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if {os.lstat(root).st_uid, os.stat(root).st_uid} != {os.geteuid()}:
        raise NodeError(Cause.PREPARATION_FAILED, f"{root} belongs to another user; set NODE_DIR to one of your own")
    root.chmod(0o700)


def id_of(root: Path) -> str:
    """The id of a node's directory, made once; several agents may begin on the same directory at once."""
    path = root / "id"
    made = root / f"id-{uuid.uuid4().hex}"
    if not path.exists():
        durable.write(str(made), uuid.uuid4().hex.encode())
        with suppress(FileExistsError):
            os.link(made, path)
        durable.sync_directory(str(root))
        made.unlink()
    return path.read_text()


def forget_other_boots(root: Path) -> None:
    """Drop what was written without being made durable, once the host has restarted: it may be torn."""
    record, boot = root / "boot", BOOT_ID.read_text()
    if not record.exists() or record.read_text() != boot:
        trees.remove(root / "code")
        trees.remove(root / "seed")
        record.write_text(boot)
