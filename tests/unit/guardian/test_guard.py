"""The guardian's own defects."""

import traceback

import pytest

from launcher.guardian.guard import _traced


def test_where_a_defect_came_from_is_told_if_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def short_of_memory(_: Exception) -> list[str]:
        raise MemoryError

    assert "ZeroDivisionError: one" in _traced(ZeroDivisionError("one"))["traceback"]
    monkeypatch.setattr(traceback, "format_exception", short_of_memory)
    assert _traced(ZeroDivisionError("one")) == {}
