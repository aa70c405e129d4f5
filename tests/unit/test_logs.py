"""What log lines look like, and to whom."""

import io
import json

import pytest
import structlog

from ci_bot.logs import configure_logging


class Terminal(io.StringIO):
    """Standard error that a person looks at."""

    def isatty(self) -> bool:
        return True


def test_programs_get_one_json_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    configure_logging("info")
    structlog.get_logger().info("started", process="web")
    said = json.loads(output.getvalue())
    assert (said["event"], said["process"], said["level"]) == ("started", "web", "info")
    assert said["timestamp"].endswith("Z")


def test_a_person_at_a_terminal_gets_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Terminal()
    monkeypatch.setattr("sys.stderr", output)
    configure_logging("info")
    structlog.get_logger().info("started", process="web")
    structlog.get_logger().debug("not asked for")
    line = output.getvalue()
    assert "{" not in line
    assert "started" in line
    assert line.count("\n") == 1
