"""The App signs in with its key, parsed once."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ci_bot.github import app_auth
from ci_bot.github.app_auth import REFRESH_AFTER_S, AppAuth, BadKey
from tests.unit.github.fake import private_key, public_key


def test_a_jwt_names_the_app_and_lives_less_than_ten_minutes() -> None:
    claims = jwt.decode(AppAuth(42, private_key()).jwt(0.0), public_key(), algorithms=["RS256"])
    assert claims["iss"] == "42"
    assert claims["exp"] - claims["iat"] <= 600


def test_one_jwt_serves_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    signed: list[object] = []
    monkeypatch.setattr(app_auth, "get_jwt", lambda **kw: signed.append(kw["private_key"]) or f"jwt {len(signed)}")
    auth = AppAuth(42, private_key())
    times = [0.0, REFRESH_AFTER_S - 1, REFRESH_AFTER_S, REFRESH_AFTER_S + 5]
    assert [auth.jwt(1000 + t) for t in times] == ["jwt 1", "jwt 1", "jwt 2", "jwt 2"]
    assert not isinstance(signed[0], str), "the key is given parsed: parsing takes 34 ms"


def test_a_clock_set_back_gets_a_new_jwt(monkeypatch: pytest.MonkeyPatch) -> None:
    signed: list[int] = []
    monkeypatch.setattr(app_auth, "get_jwt", lambda **kw: signed.append(1) or f"jwt {len(signed)}")
    auth = AppAuth(42, private_key())
    assert (auth.jwt(1000.0), auth.jwt(400.0)) == ("jwt 1", "jwt 2")


def test_a_refused_jwt_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    signed: list[int] = []
    monkeypatch.setattr(app_auth, "get_jwt", lambda **kw: signed.append(1) or f"jwt {len(signed)}")
    auth = AppAuth(42, private_key())
    auth.jwt(0.0)
    auth.forget()
    assert auth.jwt(0.0) == "jwt 2"


def test_a_bad_key_is_refused_with_advice_and_without_quoting_it() -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    for key in ("", "my-secret-key", elliptic.decode(), private_key()[:500]):
        with pytest.raises(BadKey, match="PEM") as caught:
            AppAuth(42, key)
        assert "my-secret-key" not in str(caught.value)


def test_the_key_is_never_shown() -> None:
    assert repr(AppAuth(42, private_key())) == "AppAuth(app_id=42)"
