"""How the local GitHub is served."""

from httpx2._config import DEFAULT_LIMITS
from starlette.applications import Starlette

from ci_bot.local_github.serving import config


def test_a_connection_that_a_client_still_keeps_is_not_closed_under_it() -> None:
    assert config(Starlette()).timeout_keep_alive > 2 * (DEFAULT_LIMITS.keepalive_expiry or 0.0)
