"""Numbers in words: sizes, counts, resources. Pure."""

from collections.abc import Mapping

THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"
_UNITS = ("KiB", "MiB", "GiB", "TiB")
_SINGULAR = {"CPU": "CPU", "GPU": "GPU"}


def count(number: int) -> str:
    """A whole number with its digits in groups: "1 234"."""
    return f"{number:,}".replace(",", THIN_SPACE)


def plural(number: int, noun: str) -> str:
    """ "1 file", "3 files"."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def size(number: float) -> str:
    """Bytes in binary units: "512 bytes", "15.9 GiB"."""
    if abs(number) < 1024:
        return plural(int(number), "byte")
    amount = float(number)
    for unit in _UNITS:
        amount /= 1024
        if abs(amount) < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{amount:.1f}".removesuffix(".0") + f" {unit}"


def number(value: float) -> str:
    """A number without needless digits: "2", "0.5"."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def resource(name: str, amount: float) -> str:
    """An amount of one Ray resource: "1 GPU", "0.5 GPUs", "16 GiB of memory", "2 × rack_a"."""
    if name in ("memory", "object_store_memory"):
        return f"{size(amount)} of memory"
    if name in _SINGULAR:
        return f"{number(amount)} {name}" if amount == 1 else f"{number(amount)} {name}s"
    return f"{number(amount)} × {name}"


def resources(amounts: Mapping[str, float]) -> str:
    """Several resources, GPUs first: "1 GPU, 8 CPUs, 16 GiB of memory"; "nothing" when there are none."""
    order = {"GPU": 0, "CPU": 1, "memory": 2}
    named = sorted(amounts.items(), key=lambda item: (order.get(item[0], 3), item[0]))
    return ", ".join(resource(name, amount) for name, amount in named) or "nothing"
