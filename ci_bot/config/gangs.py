"""What can be seen of a gang's commands and images before anything starts. Pure."""

from collections.abc import Mapping, Sequence

from ci_bot.config.mask import shown
from ci_bot.config.problems import At, Kind, Notes
from launcher.experiment import NodeGroup, Role, Topology


def one_image(topology: Topology, groups: Sequence[NodeGroup], places: Mapping[Role, At], notes: Notes) -> bool:
    """Whether all nodes that mpirun starts processes on have the same image; notes the one that is another.

    Args:
        topology: only under MPI is it asked: its daemons are the master's programs, at the master's paths.
        groups: as read.
        places: where each group's image is written.
        notes: takes the problem.
    """
    images = [(group.role, image) for group in groups if (image := _image(group))]
    if topology is not Topology.MULTI_MPI or len({image for _, image in images}) < 2:
        return True
    (first_role, first), (role, other) = images[0], images[-1]
    message = (
        f"`{role}` has the image {shown(other)} and `{first_role}` has {shown(first)}; under MPI all nodes need the "
        f"same, since mpirun starts its own programs on each. Write {shown(first)} for both."
    )
    notes.error(places[role], Kind.VALUE, message, found=shown(other), expected=shown(first))
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


def _image(group: NodeGroup) -> str | None:
    return f"Dockerfile {group.dockerfile.path}" if group.dockerfile else group.container
