"""Names of experiments: made unique, and fit for the name of a check run. Pure."""

from collections import Counter

from ci_bot.config.mask import shown
from ci_bot.config.problems import At, Kind, Notes
from ci_bot.report.plain import one_line
from ci_bot.report.redact import redact

MAX_NAME = 100
RESERVED = "config"
METRIC_MARK = " · "


def check_name(name: str, at: At, notes: Notes, *, write: str) -> bool:
    """Whether a name can stand in `descent/<name>` exactly as it is, after noting why not.

    Two names that differ are then two check runs, too.
    """
    if not name.strip() or name != name.strip():
        why, expected = "it is empty or has spaces at its ends", "a name"
    elif not name.isprintable():
        why, expected = "it has line ends or control characters", "printable characters on one line"
    elif len(name) > MAX_NAME:
        why, expected = f"it has {len(name)} characters", f"at most {MAX_NAME} characters"
    elif one_line(name) != name:
        why, expected = "several spaces follow one another, and GitHub would show one", "single spaces"
    elif redact(name) != name:
        why, expected = "what looks like a credential is masked wherever it is shown", "a name without one"
    elif name == RESERVED:
        why, expected = "`descent/config` is the check run that reports on this file", f"any name but `{RESERVED}`"
    elif METRIC_MARK in name:
        why, expected = "the dot parts an experiment from its metric in a check run's name", "a name without ` · `"
    else:
        return True
    message = f"{shown(name)} cannot name an experiment: {why}; expected {expected}. Write another {write}."
    notes.error(at, Kind.NAME, message, found=shown(name), expected=expected)
    return False


def unique_names(steps: list[tuple[str, str]]) -> list[str]:
    """Names for steps: the step's own, with its workflow's before it where another step has the same.

    Args:
        steps: (workflow, step) names in the file's order.
    """
    count = Counter(step for _, step in steps)
    return [step if count[step] == 1 else f"{workflow}/{step}" for workflow, step in steps]
