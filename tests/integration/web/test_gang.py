"""An experiment of several nodes: a line for each, and the log of the one that is asked for."""

import re

import pytest

from launcher.experiment import HeldNode, NodeState
from launcher.state import Cause
from tests.integration.web.conftest import RUNNING, Site
from tests.integration.web.test_stream import follow, text_of, to_the_end


def failed_gang(site: Site) -> int:
    """Worker 1 was the first to end."""
    number = site.gang(*RUNNING, state=NodeState.ENDED, exit_code=3)
    for rank in range(3):
        site.write_log(number, b"said by rank %d\n" % rank, rank=rank)
    site.end(number, Cause.COMMAND_EXITED, exit_code=3, who="worker 1 on host-1", rank=1, others=2)
    return number


def test_every_node_has_a_line_and_the_first_cause_is_marked(site: Site) -> None:
    number = failed_gang(site)
    with site.opened() as client:
        page = client.get(f"/experiments/{number}").text
    rows = re.findall(r'<tr id="node-\d.*?</tr>', page, re.DOTALL)
    assert [re.findall(r"host-\d", row)[0] for row in rows] == ["host-0", "host-1", "host-2"]
    assert ["first cause" in row for row in rows] == [False, True, False]
    assert "3 nodes: 2 running, 1 ended; isolation: bubblewrap" in page


@pytest.mark.parametrize(("query", "rank"), [("", 1), ("?node=0", 0), ("?node=2", 2)])
def test_the_page_and_the_whole_log_show_the_chosen_node_else_the_first_cause(
    site: Site, query: str, rank: int
) -> None:
    number = failed_gang(site)
    with site.opened() as client:
        page = client.get(f"/experiments/{number}{query}").text
        whole = client.get(f"/experiments/{number}/log{query}").text
    assert re.findall(r"said by rank \d", page) == [f"said by rank {rank}"]
    assert f'<option value="{rank}" selected>worker {rank}</option>' in page
    assert f"/experiments/{number}/log?node={rank}" in page
    assert whole == f"said by rank {rank}\n"


def test_a_first_cause_that_printed_nothing_leaves_the_floor_to_the_first_node(site: Site) -> None:
    number = site.gang(*RUNNING)
    site.write_log(number, b"said by rank 0\n")
    site.end(number, Cause.NODE_LOST, node="host-1", why="it is gone")
    with site.opened() as client:
        assert client.get(f"/experiments/{number}/log").text == "said by rank 0\n"
        assert client.get(f"/experiments/{number}/log?node=1").text == ""


@pytest.mark.parametrize("page", ["", "/log", "/events"])
@pytest.mark.parametrize(("node", "status"), [("3", 404), ("-1", 400), ("x", 400), ("9" * 30, 400)])
def test_a_node_that_there_is_none_of_is_refused(site: Site, page: str, node: str, status: int) -> None:
    number = failed_gang(site)
    with site.opened() as client:
        assert client.get(f"/experiments/{number}{page}?node={node}").status_code == status


def test_the_log_of_an_earlier_attempt_is_the_same_node_s(site: Site) -> None:
    number = site.gang(*RUNNING)
    site.write_log(number, b"first try\n", rank=2)
    site.end(number, Cause.NODE_LOST, node="host-1", why="it is gone")
    for signal in RUNNING[1:]:
        site.advance(number, signal)
    site.write_log(number, b"second try\n", attempt=2, rank=2)
    with site.opened() as client:
        page = client.get(f"/experiments/{number}?node=2").text
        assert f"/experiments/{number}/log?attempt=1&amp;node=2" in page
        assert client.get(f"/experiments/{number}/log?attempt=1&node=2").text == "first try\n"


def test_the_stream_is_the_chosen_node_s_and_without_a_choice_always_the_first_s(site: Site) -> None:
    number = failed_gang(site)
    for query, rank in (("", 0), ("?node=2", 2)):
        found = follow(site, number, to_the_end, query)
        said = "".join(text_of(content) for name, _, content in found if name == "log")
        assert said == f"said by rank {rank}\n"


def test_a_single_node_has_nothing_to_choose(site: Site) -> None:
    number = site.experiment(*RUNNING)
    site.hold(number, HeldNode("k-n0", "n", "host-a", "10.0.0.1"))
    with site.opened() as client:
        page = client.get(f"/experiments/{number}").text
        assert client.get(f"/experiments/{number}/log?node=1").status_code == 404
    assert "<select" not in page
    assert "node=" not in page
    assert 'class="nodes"' not in page


def test_the_api_names_every_node(site: Site) -> None:
    number = failed_gang(site)
    with site.opened() as client:
        nodes = client.get(f"/experiments/{number}.json").json()["nodes"]
    assert [(node["role"], node["rank"], node["state"], node["exit_code"]) for node in nodes] == [
        ("worker", 0, "running", None),
        ("worker", 1, "ended", 3),
        ("worker", 2, "running", None),
    ]
