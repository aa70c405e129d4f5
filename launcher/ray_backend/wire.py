"""Messages between us and the process that speaks with Ray: pickles with their length before them.

What comes back may have been touched by any node of the cluster, so that only our own values are taken from it.
"""

import asyncio
import dataclasses
import enum
import io
import pickle
import sys
from typing import Any

MAX_BYTES = 256 << 20
VALUES = ("launcher.backend", "launcher.node_types", "launcher.state")
"""The modules whose values, and nothing else, may come back."""


class WireError(Exception):
    """What came is not a message of ours."""


def pack(message: Any) -> bytes:
    """A message with its length before it."""
    body = pickle.dumps(message, protocol=5)
    return len(body).to_bytes(8, "big") + body


async def receive(reader: asyncio.StreamReader) -> bytes:
    """The next message, still packed.

    Raises:
        EOFError: the other side has gone.
        WireError: it is longer than a message can be.
    """
    try:
        size = int.from_bytes(await reader.readexactly(8), "big")
        if size > MAX_BYTES:
            raise WireError(f"a message of {size} bytes; the limit is {MAX_BYTES}")
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError from error


def unpack_values(body: bytes) -> Any:
    """A message made of plain data and our own values.

    Raises:
        WireError: it holds anything else.
    """
    try:
        return _Values(io.BytesIO(body)).load()
    except (pickle.UnpicklingError, AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        raise WireError(str(error)) from error


class _Values(pickle.Unpickler):
    def find_class(self, module_name: str, name: str) -> Any:
        if (module_name, name) == ("builtins", "getattr"):
            return _member  # how Python 3.11 up to 3.11.3 pickles a member of an enumeration
        found = getattr(sys.modules.get(module_name), name, None) if module_name in VALUES else None
        if isinstance(found, type) and found.__module__ == module_name and _is_value(found):
            return found
        raise pickle.UnpicklingError(f"{module_name}.{name} is no value of ours")


def _member(kind: Any, name: Any) -> enum.Enum:
    """The member of one of our enumerations, and no other attribute of anything."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and name in kind.__members__:
        return kind.__members__[name]
    raise pickle.UnpicklingError(f"{kind!r}.{name} is no member of an enumeration of ours")


def _is_value(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) or issubclass(kind, (enum.Enum, Exception))
