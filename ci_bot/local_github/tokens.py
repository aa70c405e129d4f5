"""Who a request comes from: JWTs of Apps verified, tokens of installations and users given and recognised."""

import base64
import hashlib
import hmac
import json
import secrets
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ci_bot.local_github.calls import Caller, Refusal
from ci_bot.local_github.state import App, Installation, Token, World

INSTALLATION_TOKEN_S = 3600
USER_TOKEN_S = 8 * 3600
REFRESH_TOKEN_S = 184 * 86400
JWT_LONGEST_S = 600


def new_key() -> tuple[str, str]:
    """A private key and its public key, both PEM; GitHub gives the private one as PKCS#1."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def digest(token: str) -> str:
    """The name under which a token is kept, so that no listing shows one."""
    return hashlib.sha256(token.encode()).hexdigest()


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _segment(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def installation_token(world: World, installation: Installation, scope: Token) -> str:
    """Give a token of the stateless kind, `ghs_<App id>_<JWT>`, some 400 characters long."""
    claims = {
        "iss": "local-github",
        "sub": str(installation.id),
        "exp": int(scope.expires_at),
        "iat": int(world.clock()),
        "jti": secrets.token_hex(48),
    }
    head = _base64(b'{"alg":"HS512","typ":"JWT","kid":"' + secrets.token_hex(8).encode() + b'"}')
    signed = f"{head}.{_base64(json.dumps(claims).encode())}"
    mark = hmac.new(world.signing_key, signed.encode(), hashlib.sha512).digest()
    token = f"ghs_{installation.app_id}_{signed}.{_base64(mark)}"
    world.tokens[digest(token)] = scope
    return token


def opaque_token(world: World, prefix: str, scope: Token) -> str:
    """Give a token of the short kind (`ghu_`, `ghr_`)."""
    token = f"{prefix}_{secrets.token_hex(18)}"
    world.tokens[digest(token)] = scope
    return token


def verify_jwt(world: World, token: str) -> App:
    """The App that signed a JWT with its private key.

    Raises:
        Refusal: 401, in GitHub's words, when it is no JWT, not signed so, or outside its ten minutes.
    """
    undecodable = Refusal(401, "A JSON web token could not be decoded")
    try:
        head_text, claims_text, signature_text = token.split(".")
        head, claims = json.loads(_segment(head_text)), json.loads(_segment(claims_text))
        signature = _segment(signature_text)
    except ValueError as problem:
        raise undecodable from problem
    if not isinstance(head, dict) or not isinstance(claims, dict) or head.get("alg") != "RS256":
        raise undecodable
    app = _issuer(world, claims.get("iss"))
    _check_times(claims, world.clock())
    key = serialization.load_pem_public_key(app.public_key_pem.encode())
    if not isinstance(key, rsa.RSAPublicKey):
        raise undecodable
    try:
        key.verify(signature, f"{head_text}.{claims_text}".encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature as problem:
        raise undecodable from problem
    return app


def _issuer(world: World, issuer: Any) -> App:
    for app in world.apps.values():
        if str(issuer) in (str(app.id), app.client_id):
            return app
    if issuer is None:
        raise Refusal(401, "Missing 'issuer' claim ('iss') in assertion")
    raise Refusal(404, "Integration not found")


def _check_times(claims: dict[str, Any], now: float) -> None:
    issued, expires = claims.get("iat"), claims.get("exp")
    if not isinstance(issued, int) or issued > now + 1:
        words = "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
        raise Refusal(401, words)
    if not isinstance(expires, int) or expires <= now:
        words = "must be a numeric value representing the future time at which the assertion expires"
        raise Refusal(401, f"'Expiration time' claim ('exp') {words}")
    if expires > now + JWT_LONGEST_S:
        raise Refusal(401, "'Expiration time' claim ('exp') is too far in the future")


def identify(world: World, authorization: str | None) -> Caller:
    """Who an Authorization header speaks for.

    Raises:
        Refusal: 401 for a token that is unknown, expired or withdrawn; 403 while the installation is suspended.
    """
    if not authorization:
        return Caller()
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() not in ("bearer", "token"):
        raise Refusal(401, "Bad credentials")
    if token.count(".") == 2 and not token.startswith("gh"):
        return Caller("app", verify_jwt(world, token))
    known = world.tokens.get(digest(token))
    if known is None or known.expires_at <= world.clock() or known.app_id not in world.apps or known.kind == "refresh":
        raise Refusal(401, "Bad credentials")
    app = world.apps[known.app_id]
    if known.kind == "user":
        return Caller("user", app, login=known.login, token_id=digest(token))
    return _installation_caller(world, app, known, digest(token))


def _installation_caller(world: World, app: App, known: Token, token_id: str) -> Caller:
    installation = world.installations.get(known.installation_id or 0)
    if installation is None:
        raise Refusal(401, "Bad credentials")
    if installation.suspended_at is not None:
        raise Refusal(403, "This installation has been suspended")
    seen = frozenset(each.id for each in world.covered(installation))
    if known.repository_ids is not None:
        seen &= known.repository_ids
    return Caller("installation", app, installation, None, seen, known.permissions, token_id)


def expire_all(world: World) -> int:
    """Make every installation token that is out expired; how many there were."""
    now = world.clock()
    live = [key for key, token in world.tokens.items() if token.kind == "installation" and token.expires_at > now]
    for key in live:
        del world.tokens[key]
    return len(live)
