"""The webhook stores what is signed, refuses the rest in one line, and answers after the store has."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_bot.settings import AppCredentials, Settings
from ci_bot.store.inbox import NotStored
from ci_bot.web import webhook as module
from ci_bot.web.guard import HEADERS
from ci_bot.web.serve import webhook_secrets
from ci_bot.web.webhook import BODY_LIMIT_BYTES, Ahead, Webhook

SECRET = b"it's a secret"
BODY = b'{"zen": "Keep it logically awesome."}'


class FakeInbox:
    """Remembers what it was given; fails if told so."""

    def __init__(self) -> None:
        self.stored: dict[str, tuple[str, bytes, float]] = {}
        self.failure: NotStored | None = None

    async def put(self, guid: str, event: str, body: bytes, *, at: float) -> bool:
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        return self.stored.setdefault(guid, (event, body, at)) == (event, body, at)


class Door:
    """The webhook, its inbox, and a client that speaks ASGI to it."""

    def __init__(self, *secrets: bytes) -> None:
        self.inbox = FakeInbox()
        self.chunks_read = 0
        self.time = 0.0
        self.webhook = Webhook(self.inbox, lambda: secrets or (SECRET,), clock=self._tick)

    def _tick(self) -> float:
        self.time += 1.0
        return self.time

    def post(
        self, chunks: Iterable[bytes], headers: dict[str, str], *, end: str = "complete"
    ) -> tuple[int, str, dict[str, str]]:
        """Status, body and headers of the answer to a request that ends complete, disconnected or never."""
        return asyncio.run(self._post(iter(chunks), headers, end))

    async def _post(self, chunks: Any, headers: dict[str, str], end: str) -> tuple[int, str, dict[str, str]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            chunk = next(chunks, None)
            if chunk is not None:
                self.chunks_read += 1
                return {"type": "http.request", "body": chunk, "more_body": True}
            if end == "never":
                await asyncio.Event().wait()
            return {"type": "http.disconnect"} if end == "disconnected" else {"type": "http.request", "body": b""}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/webhook", "headers": raw, "query_string": b""}
        await self.webhook(scope, receive, send)
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], sent[1]["body"].decode(), answered


def headers(body: bytes = BODY, secret: bytes = SECRET, **changes: str | None) -> dict[str, str]:
    """GitHub's headers of a delivery; a change to None leaves one out."""
    plain: dict[str, str | None] = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-GitHub-Event": "push",
        "X-Hub-Signature": "sha1=" + hmac.new(secret, body, hashlib.sha1).hexdigest(),
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest(),
    }
    plain |= {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in plain.items() if value is not None}


def test_a_signed_delivery_is_stored_raw_and_answered_202() -> None:
    door = Door()
    assert door.post([BODY], headers())[:2] == (202, "stored\n")
    assert door.inbox.stored == {"72d3162e-cc78-11e3-81ab-4c9367dc0958": ("push", BODY, 1.0)}


def test_the_signature_of_githubs_own_documentation_is_accepted() -> None:
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    body = b"Hello, World!"
    assert Door(b"It's a Secret to Everybody").post([body], headers(X_Hub_Signature_256=signature))[0] == 202


def test_a_known_guid_is_answered_202() -> None:
    door = Door()
    door.post([BODY], headers())
    assert door.post([BODY], headers())[:2] == (202, "duplicate\n")


def test_what_can_not_be_stored_is_answered_503_with_when_to_retry() -> None:
    door = Door()
    door.inbox.failure = NotStored("(sqlite3.OperationalError) database or disk is full")
    status, line, answered = door.post([BODY], headers())
    assert (status, answered["retry-after"]) == (503, "30")
    assert "sqlite" not in line


def test_each_of_several_secrets_is_valid_while_they_are_rotated() -> None:
    door = Door(b"old", b"new")
    for number, secret in enumerate([b"old", b"new"]):
        assert door.post([BODY], headers(secret=secret, X_GitHub_Delivery=str(number)))[0] == 202
    assert door.post([BODY], headers(secret=b"older"))[0] == 401


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"X_Hub_Signature_256": None}, "X-Hub-Signature (SHA-1) is not enough"),
        ({"X_Hub_Signature_256": None, "X_Hub_Signature": None}, "X-Hub-Signature-256 is missing"),
        ({"X_Hub_Signature_256": "sha256=" + "0" * 64}, "does not match"),
        ({"X_Hub_Signature_256": "sha256=é"}, "must be sha256= and 64 hexadecimal digits"),
        ({"X_Hub_Signature_256": "sha1=" + "0" * 64}, "must be sha256= and 64 hexadecimal digits"),
        ({"X_Hub_Signature_256": ""}, "must be sha256= and 64 hexadecimal digits"),
    ],
)
def test_what_is_not_signed_is_refused_in_one_line(changes: dict[str, str | None], says: str) -> None:
    door = Door()
    status, line, _ = door.post([BODY], headers(**changes))
    assert status == 401
    assert says in line
    assert line.count("\n") == 1
    assert door.inbox.stored == {}


@pytest.mark.parametrize("secrets", [(b"",), (b"", b"")])
def test_an_empty_secret_signs_nothing(secrets: tuple[bytes, ...]) -> None:
    status, line, _ = Door(*secrets).post([BODY], headers(secret=b""))
    assert status == 401
    assert "GITHUB_WEBHOOK_SECRET" in line


@given(body=st.binary(max_size=200), at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_any_change_of_the_body_breaks_the_signature(body: bytes, at: int, bit: int) -> None:
    signed = headers(body)
    assert Door().post([body[: len(body) // 2], body[len(body) // 2 :]], signed)[0] == 202
    changed = bytearray(body or b"\0")
    changed[at % len(changed)] ^= 1 << bit
    assert Door().post([bytes(changed)], signed)[0] == 401


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", None, "a\r\nb"])
def test_what_is_not_json_is_told_which_content_type_to_set(content_type: str | None) -> None:
    door = Door()
    status, line, _ = door.post([BODY], headers(Content_Type=content_type))
    assert status == 400
    assert "content type to application/json" in line
    assert line.count("\n") == 1
    assert door.inbox.stored == {}


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_may_be_spelled_as_http_allows(content_type: str) -> None:
    assert Door().post([BODY], headers(Content_Type=content_type))[0] == 202


@pytest.mark.parametrize("name", ["X-GitHub-Delivery", "X-GitHub-Event"])
@pytest.mark.parametrize("value", [None, "", "a b", "é", "x" * 201])
def test_a_missing_or_odd_header_is_named(name: str, value: str | None) -> None:
    door = Door()
    status, line, _ = door.post([BODY], headers(**{name.replace("-", "_"): value}))
    assert status == 400
    assert name in line
    assert door.inbox.stored == {}


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    door = Door()
    length = str(BODY_LIMIT_BYTES + 1)
    status, _, answered = door.post([b"x"], headers(Content_Length=length))
    assert (status, door.chunks_read, answered["connection"]) == (413, 0, "close")


def test_a_chunked_body_is_read_no_further_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_LIMIT_BYTES", 100)
    door = Door()
    endless = (b"x" * 30 for _ in range(1000))
    status, _, answered = door.post(endless, headers(Content_Length=None))
    assert (status, door.chunks_read, answered["connection"]) == (413, 4, "close")


def test_the_largest_body_of_github_is_taken() -> None:
    body = b"x" * BODY_LIMIT_BYTES
    door = Door()
    assert door.post([body], headers(body))[0] == 202


def test_an_unsigned_body_is_not_read() -> None:
    door = Door()
    door.post([BODY], headers(X_Hub_Signature_256=None))
    assert door.chunks_read == 0


def test_a_sender_who_goes_away_leaves_nothing() -> None:
    door = Door()
    assert door.post([BODY], headers(), end="disconnected")[0] == 400
    assert door.inbox.stored == {}


def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_DEADLINE_S", 0.0)
    assert Door().post([BODY], headers(), end="never")[0] == 408


def test_bodies_of_strangers_together_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNVERIFIED_BYTES", 250)
    door, forged = Door(), headers(b"", X_Hub_Signature_256="sha256=" + "0" * 64)

    async def crowd() -> list[int]:
        waiting = [asyncio.ensure_future(door._post(iter([b"x" * 100]), forged, "never")) for _ in range(2)]
        await asyncio.sleep(0)
        status, _, answered = await door._post(iter([b"x" * 100]), forged, "never")
        assert (answered["retry-after"], answered["connection"]) == ("30", "close")
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return [status, (await door._post(iter([b"x" * 250]), forged, "complete"))[0]]

    assert asyncio.run(crowd()) == [503, 401]
    assert door.post([BODY], headers())[0] == 202


def test_every_answer_has_the_headers_of_a_strict_site() -> None:
    door = Door()
    stored, duplicate = door.post([BODY], headers()), door.post([BODY], headers())
    door.inbox.failure = NotStored("full")
    refused, failed = door.post([BODY], headers(X_Hub_Signature_256=None)), door.post([BODY], headers())
    assert [status for status, _, _ in (stored, duplicate, refused, failed)] == [202, 202, 401, 503]
    expected = {name.lower(): value for name, value in HEADERS.items()} | {"cache-control": "no-store"}
    for _, _, answered in (stored, duplicate, refused, failed):
        assert expected.items() <= answered.items()


def test_of_a_header_that_comes_twice_the_first_one_counts() -> None:
    door = Door()
    raw = [(name.lower().encode(), value.encode()) for name, value in headers().items()]
    scope = {"type": "http", "headers": [*raw, (b"x-github-event", b"ping"), (b"x-hub-signature-256", b"sha256=")]}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY}

    async def send(message: Any) -> None:
        assert message.get("status", 202) == 202

    asyncio.run(door.webhook(scope, receive, send))
    assert [event for event, _, _ in door.inbox.stored.values()] == ["push"]


@pytest.mark.parametrize(
    ("scope", "ahead"),
    [
        ({"type": "http", "method": "POST", "path": "/webhook"}, True),
        ({"type": "http", "method": "GET", "path": "/webhook"}, False),
        ({"type": "http", "method": "POST", "path": "/webhook/"}, False),
        ({"type": "http", "method": "POST", "path": "/logout"}, False),
        ({"type": "lifespan"}, False),
    ],
)
def test_deliveries_and_nothing_else_are_taken_ahead_of_the_app(scope: dict[str, Any], ahead: bool) -> None:
    came_to_the_app = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        came_to_the_app.append(scope)

    async def nothing(*message: Any) -> Any:
        return None

    asyncio.run(Ahead(app, Door().webhook)({"headers": [], **scope}, nothing, nothing))
    assert (came_to_the_app == []) == ahead


def test_the_secrets_are_those_that_set_up_wrote_last(tmp_path: Path) -> None:
    def write(secret: str) -> None:
        beside = tmp_path / "beside"
        beside.write_text(json.dumps({"id": 1, "pem": "", "webhook_secret": secret}))
        beside.rename(tmp_path / "app.json")

    secrets = webhook_secrets(Settings(data_dir=tmp_path))
    assert secrets() == ()
    write("old")
    assert secrets() == (b"old",)
    write("new")
    assert secrets() == (b"new",)


def test_the_secrets_are_read_once_while_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def credentials(self: Settings) -> AppCredentials:
        reads.append(self)
        return AppCredentials(1, "", ("hush",))

    monkeypatch.setattr(Settings, "credentials", credentials)
    (tmp_path / "app.json").touch()
    secrets = webhook_secrets(Settings(data_dir=tmp_path))
    assert [secrets(), secrets()] == [(b"hush",)] * 2
    assert len(reads) == 1


def test_the_environments_secrets_need_no_file(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, environment_credentials=AppCredentials(1, "", ("a", "b")))
    assert webhook_secrets(settings)() == (b"a", b"b")
