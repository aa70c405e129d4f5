"""Signing in as the App: its key, parsed once, and the short-lived JWTs it signs."""

from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from gidgethub.apps import get_jwt

from ci_bot.github.errors import GitHubError

EXPIRATION_S = 9 * 60  # GitHub takes at most 10 minutes; gidgethub back-dates the beginning by one
REFRESH_AFTER_S = 6 * 60


class BadKey(GitHubError):
    """The private key can't be used; the text says what to give instead."""


class AppAuth:
    """The App's identity towards GitHub."""

    def __init__(self, app_id: int, private_key: str) -> None:
        """Parse the key: 34 ms here are 34 ms less for every event loop later.

        Raises:
            BadKey: `private_key` is no RSA key in PEM form.
        """
        self._app_id = str(app_id)
        self._key = _parsed(private_key)
        self._jwt = ""
        self._signed_at = 0.0

    def __repr__(self) -> str:
        return f"AppAuth(app_id={self._app_id})"

    def jwt(self, now: float) -> str:
        """A JWT that is valid for some minutes more."""
        # Before its own beginning: the clock was set back, and GitHub may call the old one too far in the future.
        if not self._jwt or not 0 <= now - self._signed_at < REFRESH_AFTER_S:
            # PyJWT takes a parsed key as well, which gidgethub's annotation does not say.
            self._jwt = get_jwt(app_id=self._app_id, private_key=cast("Any", self._key), expiration=EXPIRATION_S)
            self._signed_at = now
        return self._jwt

    def forget(self) -> None:
        """The last JWT was refused: sign another one."""
        self._jwt = ""


def _parsed(private_key: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        # Without the cause: its text may quote the key.
        raise BadKey(
            "the App's private key is no RSA key in PEM form: give the .pem file that GitHub offers under "
            "Settings → Developer settings → GitHub Apps → Private keys"
        )
    return key
