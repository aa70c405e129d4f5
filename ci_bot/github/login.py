"""Login with GitHub: who somebody is, and what they can read.

Source: https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app
"""

import base64
import hashlib
from urllib.parse import urlencode

from ci_bot.events.fields import Fields
from ci_bot.github import answers
from ci_bot.github.answers import User, UserToken
from ci_bot.github.errors import Forbidden, Gone, Rejected
from ci_bot.github.repositories import Place, names
from ci_bot.github.session import AsUser, Session


class LoginCalls:
    """The OAuth pages of GitHub, and calls with a person's token."""

    def __init__(self, session: Session, url: str, client_id: str, client_secret: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._client_id = client_id
        self._client_secret = client_secret

    def authorize_url(self, redirect_uri: str, state: str, verifier: str) -> str:
        """Where to send a person's browser; it comes back to `redirect_uri` with `state` and a code.

        Args:
            redirect_uri: one of the App's callback addresses.
            state: unguessable, bound to the browser.
            verifier: 43 to 128 characters, kept by us and given to `exchange_code` (PKCE, RFC 7636).
        """
        query = {
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "state": state,
            "code_challenge": challenge(verifier),
            "code_challenge_method": "S256",
        }
        return f"{self._url}/login/oauth/authorize?{urlencode(query)}"

    async def exchange_code(self, code: str, verifier: str, redirect_uri: str) -> UserToken:
        """Swap the code that a browser brought for a token; Rejected when GitHub does not take it."""
        fields = {
            "client_id": self._client_id,
            "client_secret": self._client_secret,
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
        }
        return await self._session.form(f"{self._url}/login/oauth/access_token", fields, _user_token)

    async def user(self, token: str) -> User:
        """Whose token it is."""
        return await self._session.get(AsUser(token), "/user", answers.user)

    async def user_can_read(self, token: str, repo: Place) -> bool:
        """Whether GitHub shows the repository to this person."""
        try:
            seen = await self._session.get(
                AsUser(token), "/repos/{owner}/{repo}", lambda a: a.number("id"), **names(repo)
            )
        except (Gone, Forbidden):
            return False
        return seen == repo.id  # another repository may have taken its name


def challenge(verifier: str) -> str:
    """The S256 code challenge of a verifier."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _user_token(answer: Fields) -> UserToken:
    # Errors come with status 200: bad_verification_code, incorrect_client_credentials…
    if error := answer.text("error", ""):
        raise Rejected(f"login: GitHub refuses the code: {answer.text('error_description', error)}; log in again", 200)
    return answers.user_token(answer)
