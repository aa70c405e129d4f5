"""All that is said to GitHub and all that it answers; the only room with httpx and gidgethub."""

from ci_bot.github.answers import (
    App,
    Commit,
    Delivery,
    Installation,
    NewApp,
    PostedCheckRun,
    Pull,
    Role,
    StoredDelivery,
    User,
    UserToken,
)
from ci_bot.github.app_auth import BadKey
from ci_bot.github.client import GitHub
from ci_bot.github.errors import (
    Forbidden,
    GitHubError,
    Gone,
    RateLimited,
    Rejected,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from ci_bot.github.limits import backoff_s

__all__ = [
    "App",
    "BadKey",
    "Commit",
    "Delivery",
    "Forbidden",
    "GitHub",
    "GitHubError",
    "Gone",
    "Installation",
    "NewApp",
    "PostedCheckRun",
    "Pull",
    "RateLimited",
    "Rejected",
    "Role",
    "StoredDelivery",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "User",
    "UserToken",
    "backoff_s",
]
