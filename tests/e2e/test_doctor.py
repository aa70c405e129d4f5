"""The doctor beside a running Descent: it sees the worker and Ray's node, and disturbs neither."""

import asyncio

import pytest

from ci_bot.doctor import examine
from launcher.state import State
from tests.e2e.stack import Repo, Stack


def test_it_finds_the_worker_and_the_node_and_what_runs_goes_on(
    stack: Stack, repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = repo.run("sleep 5; echo survived")
    repo.wait(sha, lambda e: e.state is State.RUNNING)
    asyncio.run(examine(stack.environment))
    said = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    fine = [text for level, text in said if level == "ok"]
    assert any(text.startswith("worker ") and "on this host holds the lease" in text for text in fine), said
    assert any(text.startswith("ray ") and "answers: 1 node with" in text for text in fine), said
    assert any(text.startswith("node ") and "its agent answers" in text for text in fine), said
    assert any("its Ray was started with the settings that we recommend" in text for text in fine), said
    ended = repo.wait(sha, lambda e: e.ended_at is not None)
    assert (ended.state, ended.progress.attempt) == (State.STOPPED, 1)
    assert "survived" in repo.log(ended)
