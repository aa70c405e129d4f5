"""Login with GitHub and the manifest flow, apart from their pages: codes given, and exchanged once."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping

from ci_bot.local_github import apps, shapes, tokens
from ci_bot.local_github.calls import Answer, Call, not_found
from ci_bot.local_github.state import App, Conversion, Grant, Json, Token, World

CODE_S = 600
CONVERSION_S = 3600


class Denied(Exception):
    """The login flow's refusal: an error code and a sentence."""

    def __init__(self, code: str, words: str) -> None:
        """Keep both."""
        super().__init__(words)
        self.code, self.words = code, words


def app_of(world: World, client_id: str | None) -> App | None:
    """The App with a client id."""
    return next((app for app in world.apps.values() if app.client_id == client_id), None)


def check_request(world: World, query: Mapping[str, str]) -> tuple[App, str]:
    """The App and the address to return to, of a request to `/login/oauth/authorize`.

    Raises:
        Denied: no such App, an address that it did not register, or a kind of PKCE that GitHub does not know.
    """
    app = app_of(world, query.get("client_id"))
    if app is None:
        raise Denied("not_found", "There is no App with this client id.")
    if not app.callback_urls:
        raise Denied("redirect_uri_mismatch", "This App has registered no callback URL.")
    redirect_uri = query.get("redirect_uri") or app.callback_urls[0]
    if redirect_uri not in app.callback_urls:
        raise Denied("redirect_uri_mismatch", "The redirect_uri is not associated with this application.")
    if query.get("code_challenge") and query.get("code_challenge_method") != "S256":
        raise Denied("invalid_request", "code_challenge_method must be S256.")
    return app, redirect_uri


def grant(world: World, app: App, login: str, redirect_uri: str, challenge: str | None) -> str:
    """A code with which the App may get a token of this person, once, within ten minutes."""
    code = secrets.token_hex(10)
    expires = world.clock() + CODE_S
    world.grants[code] = Grant(app.id, world.account(login).login, redirect_uri, challenge, expires)
    return code


def exchange(world: World, form: Mapping[str, str]) -> Json:
    """The tokens for a code or for a refresh token.

    Raises:
        Denied: as GitHub, which answers these with status 200.
    """
    app = app_of(world, form.get("client_id"))
    if app is None or not hmac.compare_digest(form.get("client_secret", ""), app.client_secret):
        raise Denied("incorrect_client_credentials", "The client_id and/or client_secret passed are incorrect.")
    if form.get("grant_type") == "refresh_token":
        with world.lock:
            known = world.tokens.pop(tokens.digest(form.get("refresh_token", "")), None)
        if known is None or (known.kind, known.app_id) != ("refresh", app.id) or known.expires_at <= world.clock():
            raise Denied("bad_refresh_token", "The refresh token passed is incorrect or expired.")
        return _tokens(world, app, known.login or "")
    with world.lock:
        given = world.grants.pop(form.get("code", ""), None)
    if given is None or given.app_id != app.id or given.expires_at <= world.clock():
        raise Denied("bad_verification_code", "The code passed is incorrect or expired.")
    if form.get("redirect_uri", given.redirect_uri) != given.redirect_uri:
        words = "The redirect_uri MUST match the registered callback URL for this application."
        raise Denied("redirect_uri_mismatch", words)
    if given.code_challenge and _challenge(form.get("code_verifier", "")) != given.code_challenge:
        raise Denied("bad_verification_code", "The code verifier does not fit the code challenge.")
    return _tokens(world, app, given.login)


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _tokens(world: World, app: App, login: str) -> Json:
    now = world.clock()
    access = Token("user", app.id, now + tokens.USER_TOKEN_S, login=login)
    refresh = Token("refresh", app.id, now + tokens.REFRESH_TOKEN_S, login=login)
    return {
        "access_token": tokens.opaque_token(world, "ghu", access),
        "expires_in": tokens.USER_TOKEN_S,
        "refresh_token": tokens.opaque_token(world, "ghr", refresh),
        "refresh_token_expires_in": tokens.REFRESH_TOKEN_S,
        "scope": "",
        "token_type": "bearer",
    }


def register(world: World, owner: str, manifest: Json) -> str:
    """Make an App of a manifest; the code with which its credentials can be fetched once, within an hour."""
    app, pem = apps.create(world, owner, manifest)
    code = secrets.token_hex(20)
    world.conversions[code] = Conversion(app.id, pem, world.clock() + CONVERSION_S)
    return code


def convert(call: Call) -> Answer:
    """`apps/create-from-manifest`: the App with its secrets, once."""
    with call.world.lock:
        found = call.world.conversions.pop(call.path["code"], None)
    if found is None or found.expires_at <= call.world.clock() or found.app_id not in call.world.apps:
        raise not_found()
    app = call.world.apps[found.app_id]
    secret = {
        "client_secret": app.client_secret,
        "webhook_secret": app.webhook_secret,
        "pem": found.pem,
    }
    return Answer(shapes.app(call.world, app) | secret, 201)
