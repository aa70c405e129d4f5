"""The parameters of a step of version 2: the option names of the original's command line. Pure."""

from dataclasses import dataclass

from ci_bot.config import values
from ci_bot.config.gangs import one_image
from ci_bot.config.groups import MULTI_KEYS, SINGLE_KEYS, node_group, topologies_with
from ci_bot.config.mask import shown
from ci_bot.config.nodes import Scalar, Sequence
from ci_bot.config.problems import Kind
from ci_bot.config.section import Keys, Section, normal
from launcher.experiment import NodeGroup, Role
from launcher.topology import SHAPES

_COMMON = (
    "name", "ports", "workingDirectory", "artifactDirectory", "experimentEnv", "modelType", "modelPath", "projectId",
    "timeout", "retries",
)  # fmt: skip
_SINGLE = ("container", "machineType", "command")
MULTI = (
    "experimentType",
    *(
        key
        for keys in MULTI_KEYS.values()
        for key in (keys.container, keys.command, keys.machine_type, keys.count)
        if key
    ),
)
_DATASETS = (
    "datasets", "datasetUri", "datasetName", "datasetAwsAccessKeyId", "datasetAwsSecretAccessKey", "datasetAwsEndpoint",
    "datasetVersionId", "datasetEtag", "datasetVolumeKind", "datasetVolumeSize", "datasetId",
)  # fmt: skip

_CODE = "the code is always the commit that is checked"
_REGISTRY = "containers are not pulled with credentials"
_CREDENTIAL = ", and who can read the repository can read this credential"
_TAGS = "experiments have no tags"
_BOARD = "there is no TensorBoard"


def _each_group(suffix: str, why: str) -> dict[str, str]:
    single = suffix[0].lower() + suffix[1:]
    return dict.fromkeys((single, *(f"{group}{suffix}" for group in ("worker", "parameterServer", "master"))), why)


IGNORED = {
    "clusterId": "experiments run on the Ray cluster that this installation is connected to",
    "apiKey": f"no account with the original's operator is used{_CREDENTIAL}",
    "workspace": _CODE,
    "workspaceRef": _CODE,
    "workspaceUsername": _CODE,
    "workspacePassword": _CODE + _CREDENTIAL,
    "ignoreFiles": _CODE,
    "isPreemptible": "machines are your own and not rented",
    "tag": _TAGS,
    "tags": _TAGS,
    "tensorboard": _BOARD,
    "tensorboard_set": _BOARD,
    "no-logs": "the log is always kept",
    **_each_group("ContainerUser", "commands run as a user of their own without privileges"),
    **_each_group("RegistryUsername", _REGISTRY),
    **_each_group("RegistryPassword", _REGISTRY + _CREDENTIAL),
    **_each_group("RegistryUrl", _REGISTRY),
}
KEYS = Keys(
    (*_COMMON, *_SINGLE, *MULTI, *_DATASETS, *IGNORED),
    {"project": "projectId", "projecthandle": "projectId", "experimenttypeid": "experimentType", "dataset": "datasets"},
)


@dataclass(frozen=True)
class Params:
    """What a step's parameters say."""

    topology: str
    groups: tuple[NodeGroup, ...]
    env: dict[str, str]
    ports: tuple[int, ...]
    workdir: str | None
    artifacts: str | None
    model_type: str | None
    model_path: str | None
    project: str | None
    timeout_s: int | None
    retries: int | None


def commands() -> dict[str, tuple[str, ...]]:
    """What a step's `command` may be, each with the topologies that it may mean."""
    words = dict.fromkeys(word for shape in SHAPES.values() for word in shape.commands)
    return {word: tuple(name for name, shape in SHAPES.items() if word in shape.commands) for word in words}


def read_params(section: Section, command: str, step_name: str | None) -> Params | None:
    """The parameters for one of the commands of a step; None, after noting why, when one that it needs is missing.

    Args:
        section: the mapping, with this module's KEYS.
        command: one of `commands`.
        step_name: the step's name, which is the experiment's.
    """
    section.report_unknown()
    for key, why in IGNORED.items():
        section.ignored(key, why)
    name = section.text("name")
    if name is not None and name != step_name:
        section.ignored("name", f"an experiment is named by its step, here {shown(step_name or '')}")
    _refuse_datasets(section)
    topology = _topology(section, command)
    groups = _groups(section, topology) if topology else None
    env, ports = values.environment(section), values.ports(section)
    workdir = values.directory(section, "workingDirectory")
    artifacts = values.directory(section, "artifactDirectory", example="/artifacts")
    model_type = values.model_type(section, "modelType")
    model_path, project = section.text("modelPath"), section.text("projectId")
    timeout_s, retries = values.timeout(section), values.retries(section)
    if topology is None or groups is None:
        return None
    return Params(topology, groups, env, ports, workdir, artifacts, model_type, model_path, project, timeout_s, retries)


def _topology(section: Section, command: str) -> str | None:
    allowed = commands()[command]
    word = section.text("experimentType")
    if word is None and not section.has("experimentType"):
        fitting = topologies_with(role for role, keys in MULTI_KEYS.items() if section.has(keys.command))
        return next((name for name in allowed if name in fitting), allowed[0])
    types = {name.removeprefix("multi-").upper(): name for name in allowed if not SHAPES[name].one_node}
    topology = types.get(normal(word or "").removeprefix("multi").upper())
    if topology is None:
        either = " or ".join(types)
        expected = f"{either} for `{command}`" if types else f"left out for `{command}`"
        write = f"`experimentType: {either}`" if types else "nothing there"
        section.wrong("experimentType", expected, write, kind=Kind.TYPE)
    return topology


def _groups(section: Section, topology: str) -> tuple[NodeGroup, ...] | None:
    shape = SHAPES[topology]
    by_role = {role: SINGLE_KEYS if shape.one_node else MULTI_KEYS[role] for role in shape.roles}
    used = {key for keys in by_role.values() for key in keys.all}
    for key in (*_SINGLE, *MULTI):
        if key not in used and key != "experimentType" and section.has(key):
            message = f"`{section.path(key)}` is not used: type {topology} takes no `{key}`. Remove it."
            section.notes.warning(section.at(key), Kind.UNUSED, message, found=f"`{key}`")
    mpi = f", or, for MPI, `experimentType: MPI` and `{MULTI_KEYS[Role.MASTER].command}`"
    others = {} if section.has("experimentType") else {Role.PARAMETER_SERVER: mpi}
    written = [node_group(section, role, keys, instead=others.get(role, "")) for role, keys in by_role.items()]
    groups = tuple(each.group for each in written if each.group)
    return groups if one_image(topology, written, section.notes) and len(groups) == len(written) else None


def _refuse_datasets(section: Section) -> None:
    """A data set that silently is not there would make a run wrong, so it is an error until data sets exist."""
    for key in _DATASETS:
        node = section.get(key)
        items = node.items if isinstance(node, Sequence) else (node,) if node else ()
        if all(isinstance(item, Scalar) and (item.null or item.text.lower() == "none") for item in items):
            continue
        message = (
            f"`{section.path(key)}` asks for a data set, and data sets are not mounted yet. Remove it, and have the "
            "command fetch the data, to a directory below /storage say, which is kept from run to run."
        )
        section.notes.error(section.at(key), Kind.DATASETS, message, found=f"`{key}`", expected="no data sets")
