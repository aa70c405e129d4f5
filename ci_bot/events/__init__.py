"""Webhook deliveries as our few typed events; everything else is Ignored, with the reason. Pure."""

from ci_bot.events.kinds import (
    CheckRunAction,
    CheckRunRerequested,
    CheckSuiteRerequested,
    Event,
    Ignored,
    InstallationChanged,
    InstalledRepository,
    MergeGroup,
    Ping,
    PullRequest,
    Push,
    RepositoriesChanged,
    RepositoryRef,
    Sender,
)
from ci_bot.events.parse import parse
from ci_bot.events.skip import skip_requested

__all__ = [
    "CheckRunAction",
    "CheckRunRerequested",
    "CheckSuiteRerequested",
    "Event",
    "Ignored",
    "InstallationChanged",
    "InstalledRepository",
    "MergeGroup",
    "Ping",
    "PullRequest",
    "Push",
    "RepositoriesChanged",
    "RepositoryRef",
    "Sender",
    "parse",
    "skip_requested",
]
