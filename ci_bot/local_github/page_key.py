"""The key that lets a browser sign in: loopback is no proof of who asks, since experiments share it. Pure."""

import hashlib
import hmac


def page_key(control_token: str) -> str:
    """The key, which opens less than the token that it is made of."""
    return hmac.new(control_token.encode(), b"pages", hashlib.sha256).hexdigest()[:32]
