"""Versions 0 and 1 of the file: one experiment, its groups at the top level. Pure."""

from dataclasses import replace

from ci_bot.config import values
from ci_bot.config.checks import read_checks
from ci_bot.config.filters import Triggers, triggers_of
from ci_bot.config.gangs import Written, one_image
from ci_bot.config.groups import MAX_COUNT, GroupKeys, node_group, topologies_with, topology_of
from ci_bot.config.mask import shown
from ci_bot.config.model import ConfiguredExperiment
from ci_bot.config.names import check_name
from ci_bot.config.nodes import Entry, Mapping
from ci_bot.config.problems import Kind, Notes
from ci_bot.config.section import Keys, Section
from launcher.experiment import Dockerfile, NodeGroup, Role, Specification
from launcher.topology import SHAPES

KEYS = Keys(
    (
        "version", "project", "experiment", "type", "ports", "paths", "model", "worker", "parameter-server", "master",
        "filters", "checks", "vpc", "timeout", "retries",
    ),
    {
        "triggers": "filters", "trigger": "filters", "filter": "filters",
        "projectid": "project", "projecthandle": "project",
    },
)  # fmt: skip
ENVIRONMENT = Keys(("experimentEnv",))
PATHS = Keys(("workdir", "artifacts"), {"workingdirectory": "workdir", "artifactdirectory": "artifacts"})
MODEL = Keys(("type", "path"), {"modeltype": "type", "modelpath": "path"})
GROUP = Keys(("container", "command", "machine-type", "count", "dockerfile"))
USE_DOCKERFILE = Keys(("use-dockerfile",))
DOCKERFILE = Keys(("use", "path"))

GROUP_KEYS = GroupKeys("container", "command", "machine-type", "count")
ONE_NODE_KEYS = GroupKeys("container", "command", "machine-type", None)


def read(node: Mapping, repository_name: str, notes: Notes) -> ConfiguredExperiment | None:
    """The experiment of the file; None, after noting why, when something it needs is missing or wrong."""
    top = Section(node, "", KEYS, notes)
    env = _environment(top)
    triggers = triggers_of(top, "filters") or Triggers()
    top.report_unknown()
    top.ignored("vpc", "experiments run in the network of your own machines")
    checks_node = top.mapping("checks")
    checks = read_checks(checks_node, "checks", notes) if checks_node else ()
    name, topology = _name(top, repository_name), _topology(top)
    groups = _groups(top, topology)
    workdir, artifacts = _paths(top)
    model_type, model_path = _model(top)
    ports, timeout_s, retries = values.ports(top), values.timeout(top), values.retries(top)
    project = top.text("project")
    if name is None or topology is None or groups is None:
        return None
    specification = Specification(
        name=name,
        topology=topology,
        groups=groups,
        env=env,
        ports=ports,
        workdir=workdir,
        artifacts=artifacts,
        model_type=model_type,
        model_path=model_path,
        timeout_s=timeout_s,
        retries=retries or 0,
    )
    line = top.at("worker").line
    return ConfiguredExperiment(
        specification=specification, triggers=triggers, checks=checks, project=project, line=line
    )


def _environment(top: Section) -> dict[str, str]:
    """Variables, which only version 2 has; without them a command would do something else, so they count here too."""
    taken = top.take_unknown(ENVIRONMENT)
    for _, entry in taken:
        message = "`experimentEnv` belongs to version 2 (in `params`); it was read as it is there."
        top.notes.warning(entry.key.at, Kind.MISPLACED, message, found="`experimentEnv`", expected="version 2")
    section = Section(Mapping(tuple(entry for _, entry in taken), top.start), "", ENVIRONMENT, top.notes)
    return values.environment(section)


def _name(top: Section, repository_name: str) -> str | None:
    name = top.text("experiment") if top.has("experiment") else repository_name
    at = values.value_at(top, "experiment")
    return name if name is not None and check_name(name, at, top.notes, write="`experiment: …`") else None


def _topology(top: Section) -> str | None:
    if not top.has("type"):
        first, *others = SHAPES
        top.missing("type", f"`type: {first}`, or {', '.join(others)}", is_example=True)
        return None
    word = top.text("type")
    if word is None:
        return None
    fitting = topologies_with(role for role in Role if top.has(role))  # the second group shows which one is meant
    return topology_of(word, top, "type", multinode=fitting[0] if len(fitting) == 1 else None)


def _groups(top: Section, topology: str | None) -> tuple[NodeGroup, ...] | None:
    """The groups in the topology's order. For multi-mpi `master` may be left out: worker 0 then does its work."""
    roles = SHAPES[topology].roles if topology else tuple(Role)
    written: list[Written | None] = []
    for role in roles:
        if top.has(role):
            written.append(_group(top, role, topology))
        elif role is Role.WORKER or (topology and role is not Role.MASTER):
            top.missing(role, f"`{role}:` and below it `command: …`, indented")
            written.append(None)
    for role in Role:
        if role not in roles and top.has(role):
            message = f"`{role}` is not used: `type: {topology}` has no such group. Remove it, or change `type`."
            top.notes.warning(top.at(role), Kind.UNUSED, message, found=f"`{role}`")
    read = [each for each in written if each]
    groups = tuple(each.group for each in read if each.group)
    alike = topology is None or one_image(topology, read, top.notes)
    return groups if alike and len(groups) == len(written) else None


def _group(top: Section, role: Role, topology: str | None) -> Written | None:
    section = top.section(role, GROUP)
    if section is None:
        return None
    dockerfile = _dockerfile(section)
    section.report_unknown()
    one_node = topology is not None and SHAPES[topology].one_node
    count = section.integer("count", 1, MAX_COUNT)
    if one_node and count is not None and count > 1:
        message = (
            f"`{role}.count` is not used: `type: {topology}` is one node. Remove it, or choose another type, for "
            "example `type: multi-torch`."
        )
        section.notes.warning(section.at("count"), Kind.UNUSED, message, found=str(count), expected="1")
    return node_group(
        section, role, ONE_NODE_KEYS if one_node or topology is None else GROUP_KEYS, dockerfile=dockerfile
    )


def _dockerfile(section: Section) -> Dockerfile | None:
    inner = section.section("dockerfile", DOCKERFILE)
    use, path = None, None
    if inner:
        inner.report_unknown()
        use = inner.boolean("use")
        path = values.path_within(inner, "path", example="docker/Dockerfile")
    for key, entry in section.take_unknown(USE_DOCKERFILE):
        right = Entry(replace(entry.key, text=key), entry.value)
        flat = Section(Mapping((right,), entry.key.at), section.where, USE_DOCKERFILE, section.notes)
        flat_use = flat.boolean(key)
        use = flat_use if use is None else use
        message = (
            f"{shown(section.path(entry.key.text))} was read as `dockerfile.use`. Write `dockerfile: {{use: true}}`."
        )
        section.notes.warning(entry.key.at, Kind.SPELLING, message, found=entry.key.text, expected="`dockerfile.use`")
    if not use:
        return None
    return Dockerfile(path=path) if path else Dockerfile()


def _paths(top: Section) -> tuple[str | None, str | None]:
    paths = top.section("paths", PATHS)
    if paths is None:
        return None, None
    paths.report_unknown()
    return values.directory(paths, "workdir"), values.directory(paths, "artifacts", example="/artifacts")


def _model(top: Section) -> tuple[str | None, str | None]:
    model = top.section("model", MODEL)
    if model is None:
        return None, None
    model.report_unknown()
    for key, write in (("type", "`type: Tensorflow`, ONNX or Custom"), ("path", "a path, like `path: /artifacts`")):
        if not model.has(key):
            message = f"`model.{key}` is missing. Write {write}."
            model.notes.warning(model.at(key), Kind.MISSING, message, found="nothing", expected=write)
    return values.model_type(model), model.text("path")
