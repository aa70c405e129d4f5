"""What can go wrong with a call to GitHub, as one small tree; no text of it ever holds a token. Pure.

GitHubError
├── RateLimited   come back at `until`
├── Unavailable   GitHub or the way to it is down: come back later
├── Gone          repository, commit or installation is not there (any more), or not for us
├── Unauthorized  our key or token is not accepted, twice
├── Forbidden     known, but not allowed: a permission is missing or the installation is suspended
├── Rejected      GitHub understood and refuses: asking again changes nothing
└── TooLarge      the answer is larger than we are willing to read
"""

import re
from datetime import UTC, datetime

# Tokens of all kinds, old and new form, JWTs, and what signed addresses and the manifest flow carry. A proxy's error
# page may repeat our own headers, and its text becomes part of a message.
SECRET = re.compile(
    r"gh[pousr]_[A-Za-z0-9._-]{8,}"
    r"|github_pat_[A-Za-z0-9_]{8,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"
    r"|(?<=token )[^\s\"'<>]{16,}|(?<=bearer )[^\s\"'<>]{16,}|(?<=token=)[^\s&\"'<>]+"
    r"|(?<=/app-manifests/)[^/\s]+",
    re.IGNORECASE,
)


def scrubbed(text: str) -> str:
    """`text` without anything that looks like a secret."""
    return SECRET.sub("***", text)


class GitHubError(Exception):
    """A call to GitHub did not give what was asked; the text says what, where and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(scrubbed(text))


class RateLimited(GitHubError):
    """GitHub wants a pause; until then no call is even tried."""

    def __init__(self, text: str, until: float) -> None:
        at = datetime.fromtimestamp(until, UTC).strftime("%H:%M:%S")
        super().__init__(f"{text}; trying again after {at} UTC")
        self.until = until
        """Seconds since the epoch."""


class Unavailable(GitHubError):
    """No answer, half an answer or a 5xx: the same call may work later (`limits.backoff_s` says when)."""


class Gone(GitHubError):
    """It does not exist, exists no more, or is hidden from us: GitHub answers all three alike."""


class Unauthorized(GitHubError):
    """The App's key or a fresh token was refused."""


class Forbidden(GitHubError):
    """The App may not do this."""


class Rejected(GitHubError):
    """GitHub refuses what we sent; the same again would be refused again."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class TooLarge(GitHubError):
    """More bytes than the limit of this call; nothing was kept of it."""
