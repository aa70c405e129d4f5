"""What becomes of text on its way into a database."""

from enum import StrEnum

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from ci_bot.store.tables import Text

DIALECT = sqlite.dialect()


class Colour(StrEnum):
    RED = "bright red"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_text_that_a_database_can_hold_is_unchanged(text: str) -> None:
    assert Text().process_bind_param(text, DIALECT) == text


@given(st.text(st.characters() | st.sampled_from("\0\ud800\udfff")))
def test_any_text_becomes_valid_utf_8_without_nul(text: str) -> None:
    bound = Text().process_bind_param(text, DIALECT)
    assert bound is not None
    bound.encode()
    assert "\0" not in bound


def test_an_enumerations_member_is_stored_as_its_value() -> None:
    bound = Text().process_bind_param(Colour.RED, DIALECT)
    assert (bound, type(bound)) == ("bright red", str)
    assert Text().process_bind_param(None, DIALECT) is None
