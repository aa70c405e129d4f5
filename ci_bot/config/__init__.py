"""config.yaml -> experiments, or every problem with its line and column. Pure."""

from ci_bot.config.checks import Check, Outcome, Range, Rounding
from ci_bot.config.filters import Filters, Triggers
from ci_bot.config.find import BARE, SEARCH_ORDER, candidates, is_ours
from ci_bot.config.mask import is_secret_name, mask, mask_text
from ci_bot.config.model import Configuration, ConfiguredExperiment
from ci_bot.config.parse import parse
from ci_bot.config.problems import Kind, Problem, Severity
from ci_bot.config.source import MAX_BYTES

__all__ = [
    "BARE",
    "MAX_BYTES",
    "SEARCH_ORDER",
    "Check",
    "Configuration",
    "ConfiguredExperiment",
    "Filters",
    "Kind",
    "Outcome",
    "Problem",
    "Range",
    "Rounding",
    "Severity",
    "Triggers",
    "candidates",
    "is_ours",
    "is_secret_name",
    "mask",
    "mask_text",
    "parse",
]
