"""What may reach Ray's processes."""

from pathlib import Path

import pytest

from launcher.ray_environment import allowed, for_driver, for_head


@pytest.mark.parametrize(
    "name",
    [
        "GITHUB_PRIVATE_KEY",
        "GITHUB_WEBHOOK_SECRET",
        "DATABASE_URL",
        "AWS_SECRET_ACCESS_KEY",
        "PYTHONPATH",
        "RAY_ADDRESS",
        "UV_PUBLISH_TOKEN",
        "PIP_PASSWORD",
        "UV_INDEX_X_PASSWORD",
        "LD_PRELOAD",
    ],
)
def test_nothing_passes_that_is_not_on_the_list(name):
    assert allowed({name: "x"}) == {}


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "NODE_DIR", "PIP_INDEX_URL", "UV_INDEX_URL", "SSL_CERT_FILE"]
)
def test_what_commands_and_packages_need_passes(name):
    assert allowed({name: "x"}) == {name: "x"}


def test_authentication_is_ours_whatever_the_environment_says():
    ours = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": "/elsewhere"}
    for environment in (for_head(ours, Path("/t")), for_driver(ours, Path("/t"))):
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN_PATH"] == "/t"
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
