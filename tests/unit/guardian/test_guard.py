"""The guardian's own defects."""

import sys

import pytest

from launcher.guardian.guard import _traced


def test_where_a_defect_came_from_is_told_if_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ZeroDivisionError: one" in _traced(ZeroDivisionError("one"))["traceback"]
    monkeypatch.setitem(sys.modules, "traceback", None)  # as where no descriptor is left to read it
    assert _traced(ZeroDivisionError("one")) == {}
