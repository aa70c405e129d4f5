"""What the exit code of the driver process says about the cluster. Pure."""

HEAD_SILENT = 64
ANOTHER_CLUSTER = 65
NO_RAYLET = 66

_WHY = {
    HEAD_SILENT: "the head does not answer",
    ANOTHER_CLUSTER: "another cluster answers at the head's address",
    NO_RAYLET: "the Ray node on this host has ended",
}


def why_ended(exit_code: int | None, last_words: str) -> str:
    """Why the driver ended, for a person."""
    if exit_code in _WHY:
        return _WHY[exit_code]
    return f"the connection to Ray ended ({exit_code}){': ' + last_words if last_words else ''}"
