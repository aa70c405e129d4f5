"""Whether a commit message asks to be left alone. Pure."""

import re

# https://docs.github.com/actions/managing-workflow-runs/skipping-workflow-runs
IN_MESSAGE = re.compile(r"\[(?:skip ci|ci skip|no ci)\]", re.IGNORECASE)
# https://docs.github.com/pull-requests/collaborating-with-pull-requests/collaborating-on-repositories-with-code-quality-features/about-status-checks
TRAILER = re.compile(r"skip-checks:[ \t]*true[ \t]*", re.IGNORECASE)
TRAILERS = re.compile(r"[A-Za-z0-9-]+:.*")


def skip_requested(message: str) -> str | None:
    """What in `message` asks for no checks, in the words that ask for it, or None.

    GitHub's rule: `[skip ci]`, `[ci skip]` or `[no ci]` anywhere; or the trailer `skip-checks: true` as the last line,
    after empty lines (git folds two of them into one) and, at most, other trailers.
    """
    if found := IN_MESSAGE.search(message):
        return found.group().lower()
    lines = [line.rstrip() for line in message.rstrip().splitlines()]
    if len(lines) < 2 or not TRAILER.fullmatch(lines[-1]):
        return None
    block = lines[: len(lines) - 1]
    while block and TRAILERS.fullmatch(block[-1]):
        block.pop()
    return "skip-checks: true" if block and block[-1] == "" else None
