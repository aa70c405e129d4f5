"""What can be seen of a gang's commands and images before anything starts. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from ci_bot.config.mask import shown
from ci_bot.config.problems import At, Kind, Notes
from launcher.experiment import NodeGroup, Role
from launcher.topology import SHAPES


@dataclass(frozen=True)
class Written:
    """A group as the file has it; `group` is None where something is wrong with it, but its image may be known."""

    role: Role
    image: str | None
    image_at: At
    group: NodeGroup | None


def one_image(topology: str, groups: Sequence[Written], notes: Notes) -> bool:
    """Whether all nodes that mpirun starts processes on have the same image; notes the one that is another.

    Args:
        topology: only under MPI is it asked: its daemons are the master's programs, at the master's paths.
        groups: as written.
        notes: takes the problem.
    """
    known = [(group, group.image) for group in groups if group.image]
    if not SHAPES[topology].launches or len({image for _, image in known}) < 2:
        return True
    (first, wanted), (other, found) = known[0], known[-1]
    message = (
        f"`{other.role}` has the image {shown(found)} and `{first.role}` has {shown(wanted)}; under MPI all nodes need "
        f"the same, since mpirun starts its own programs on each. Write {shown(wanted)} for both."
    )
    notes.error(other.image_at, Kind.VALUE, message, found=shown(found), expected=shown(wanted))
    return False


def background(command: str) -> str | None:
    """What sends the command into the background, and so ends it at once; None where nothing is sure to."""
    lines = [line.strip() for line in command.splitlines()]
    last = next((line for line in reversed(lines) if line and not line.startswith("#")), "")
    words = last.replace(";", " ; ").split()
    if last.endswith("&") and not last.endswith(("&&", "\\&", "|&", ">&")) and " #" not in last:
        return "&"
    begins = len(words) - next((i for i, word in enumerate(reversed(words)) if word in {";", "&&", "||"}), len(words))
    if words[begins : begins + 1] == ["setsid"] and not {"-w", "--wait"} & set(words[begins:]):
        return "setsid"
    return "--daemonize" if "--daemonize" in words[begins:] else None
