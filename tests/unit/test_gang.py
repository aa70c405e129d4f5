"""What is on record of a gang's nodes, so that each is found again whatever happens."""

from dataclasses import replace
from pathlib import Path

from launcher.node_types import NodeError
from launcher.state import Cause, State
from tests.fakes import Command, Host, causes
from tests.unit.test_controller import KEY, Case, driven


def test_who_the_nodes_are_is_on_record_before_anything_is_there(tmp_path: Path) -> None:
    case = Case(tmp_path)
    refusal = NodeError(Cause.DISK_FULL, "no room")
    driven(case, before=lambda case: case.backend.faults["code_offset"].append(refusal))
    assert [node.root_id for node in case.journal.held.nodes] == [case.host.id]
    assert causes(case.journal) == [Cause.DISK_FULL]


def test_a_node_that_can_not_be_used_holds_nothing(tmp_path: Path) -> None:
    case = Case(tmp_path)
    driven(case, before=lambda case: setattr(case.host, "isolation", "none"))
    assert case.host.runs == {}
    assert case.backend.groups == {}


def test_a_namesake_is_never_asked_to_prove_that_a_lost_machine_is_empty(tmp_path: Path) -> None:
    case = Case(tmp_path, Command(), state=State.RUNNING, running_for_s=0, retries=2)
    namesake = Host("host-a")

    def before(case: Case) -> None:
        node = replace(case.journal.held.nodes[0], root_id=case.host.id)
        case.journal.held = replace(case.journal.held, nodes=(node,))
        case.backend.nodes["n2"] = namesake

    took_s = driven(case, (1, lambda case, drive: case.backend.nodes.pop("n1")), before=before)
    assert causes(case.journal) == [Cause.NODE_LOST]
    assert case.journal.progress.state is State.PENDING
    assert took_s > case.rules.fence_s
    assert ("clean", "n2") not in case.backend.calls
    assert KEY in case.host.runs


def test_groups_carry_the_prefix_of_who_is_not_the_app(tmp_path: Path) -> None:
    case = Case(tmp_path, Command(runs_s=1))
    case.rules = replace(case.rules, group_prefix="run-1a2b3c4d-")
    driven(case)
    assert case.journal.states[-1] is State.STOPPED
    assert [name for method, name in case.backend.calls if method in {"reserve", "release"}] == [
        "run-1a2b3c4d-exp-7-a1",
        "run-1a2b3c4d-exp-7-a1",
    ]
    assert list(case.host.ended) == ["run-1a2b3c4d-exp-7-a1-n0"]
