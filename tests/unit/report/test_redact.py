"""No secret that has a form, or that is known, comes through; however it is cut or delivered."""

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ci_bot.report.markdown import tail_lines
from ci_bot.report.redact import LONGEST, MASK, Stream, redact

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def segment(length: int, seed: int = 7) -> str:
    """Characters as a token has them, without luck."""
    return "".join(LETTERS[(seed * (n + 3) * (n + 11)) % len(LETTERS)] for n in range(length))


JWT = f"eyJ{segment(33)}.eyJ{segment(180)}.{segment(260, 5)}-_{segment(80, 11)}"
KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "\n".join(segment(64, n) for n in range(2, 27))
    + "\n-----END RSA PRIVATE KEY-----"
)
TOKENS = {
    "classic personal": f"ghp_{segment(36)}",
    "oauth": f"gho_{segment(36)}",
    "user to server": f"ghu_{segment(36)}",
    "installation": f"ghs_{segment(36)}",
    "stateless installation": f"ghs_1234567_{JWT}",
    "refresh": f"ghr_{segment(76)}",
    "fine-grained": f"github_pat_{segment(22)}_{segment(59)}",
    "old installation": "v1." + "0123456789abcdef0123456789abcdef01234567",
    "jwt": JWT,
    "aws id": "AKIA" + "IOSFODNN7EXAMPLE",
    "hugging face": f"hf_{segment(34)}",
    "openai": f"sk-proj-{segment(48)}",
    "private key": KEY,
    "openssh key": KEY.replace("RSA", "OPENSSH"),
    "pkcs8 key": KEY.replace("RSA ", ""),
    "pgp key": KEY.replace("RSA PRIVATE KEY", "PGP PRIVATE KEY BLOCK"),
}
CONTEXTS = {
    "bearer": ("Authorization: Bearer ", segment(30), ""),
    "basic": ("authorization: Basic ", segment(30), ""),
    "token scheme": ("curl -H 'Authorization: token ", segment(30), "' x"),
    "python header": ("{'Authorization': 'Bearer ", segment(30), "'}"),
    "json in json": (r"{\"authorization\": \"", segment(30), r"\"}"),
    "bare bearer": ("sent Bearer ", segment(30), " to it"),
    "url password": ("https://", "user:p4ss:w0rd!", "@example.org/x"),
    "url token": ("git clone https://", segment(30), "@github.com/octo/x.git"),
    "aws secret": ("aws_secret_access_key = ", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""),
    "aws json": ('"SecretAccessKey": "', "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", '"'),
    "environment": ("WANDB_API_KEY=", segment(40), ""),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_is_masked_whole(kind: str) -> None:
    assert redact(f"x {TOKENS[kind]} y") == f"x {MASK} y"


@pytest.mark.parametrize("kind", CONTEXTS)
def test_a_value_that_its_context_makes_a_secret_is_masked_alone(kind: str) -> None:
    before, secret, after = CONTEXTS[kind]
    assert redact(f"x {before}{secret}{after} y") == f"x {before}{MASK}{after} y"


@pytest.mark.parametrize(
    "text",
    [
        "step 1: loss=0.25 tokens: 40960 token=7 lr 3e-4",
        "https://example.org/a?b=c#d",
        "git+ssh://git@github.com/octo/x.git",
        "sha a1b2c3d4e5f60718293a4b5c6d7e8f9012345678",
        "basic configuration-of-everything MAX_TOKEN=1024 ghp_short eyJ.eyJ.x mail me@example.org",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "form",
    [
        lambda s: s,
        lambda s: base64.b64encode(s.encode()).decode(),
        lambda s: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
        lambda s: base64.b64encode(b"u:" + s.encode() + b"\n").decode(),
        lambda s: base64.b64encode(b"a:" + s.encode() + b"xy").decode(),
        lambda s: (
            s.replace("/", "%2F").replace('"', "%22").replace(" ", "%20").replace("ü", "%C3%BC").replace("?>", "%3F%3E")
        ),
        lambda s: s.replace('"', r"\"").replace("ü", r"\u00fc"),
    ],
)
def test_a_given_value_is_masked_in_every_form(form: object) -> None:
    secret = 'pa"ss/wörd ünd mehr?>'.replace("ö", "o")
    text = f"it is {form(secret)}!"  # type: ignore[operator]
    masked = redact(text, (secret,))
    assert MASK in masked
    assert not any(text[at : at + 8] in masked for at in range(6, len(text) - 10))


def test_overlapping_secrets_leave_no_rest() -> None:
    assert redact("x abcdefgh y", ("abcdef", "defgh")) == f"x {MASK} y"
    assert redact("x abcdefgh y", ("bcd", "abcdefgh", "cdef")) == f"x {MASK} y"


def test_a_secret_too_short_to_hide_does_not_shred_the_text() -> None:
    assert redact("a 1 b no", ("1", "no", "", "  ")) == "a 1 b no"


@pytest.mark.parametrize("cut", [1, 40, 700, 1500])
def test_half_a_private_key_is_masked_from_either_side(cut: int) -> None:
    for half in (f"before\n{KEY[:cut]}", f"{KEY[cut:]}\nafter"):
        if "PRIVATE KEY-----" in half:
            assert segment(64, 4)[:20] not in redact(half)


def test_an_unfinished_key_does_not_swallow_the_rest_of_the_log() -> None:
    text = "-----BEGIN PRIVATE KEY-----\n" + "x" * 3 * LONGEST + "the end"
    assert redact(text).endswith("the end")


@given(st.text(alphabet="abe:/@ .-_=\n1Jyghps", max_size=300), st.sampled_from([*TOKENS.values()]))
def test_redacting_twice_changes_nothing(noise: str, token: str) -> None:
    once = redact(f"{noise} {token} {noise}")
    assert token not in once
    assert redact(once) == once


@given(st.integers(0, 60), st.sampled_from(sorted(TOKENS)), st.integers(0, 4000))
def test_no_part_of_a_token_survives_the_cut_of_a_tail(max_lines: int, kind: str, budget: int) -> None:
    log = "\n".join(f"line {n} {TOKENS[kind]} end" for n in range(40)).encode()
    for window in (log, log[len(log) - 3000 :]):
        tail = tail_lines(window, max_lines, budget, begins_inside=window is not log)
        assert segment(36)[:12] not in tail.text
        assert TOKENS[kind][-12:] not in tail.text.replace("PRIVATE KEY-----", "")


@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(TOKENS)))
def test_a_stream_shows_what_the_whole_log_would(data: st.DataObject, kind: str) -> None:
    log = f"begin\r\n50%\r100%\né {TOKENS[kind]}\nAuthorization: Bearer {segment(30)} \x1b[31mred\x1b[0m\nend".encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=8)))
    stream, shown = Stream(("hunter22",)), ""
    for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        text, stream = stream.feed(log[start:end], final=end == len(log))
        shown += text
    last, _ = stream.feed(b"", final=True)
    expected = f"begin\n50%\r100%\né {MASK}\nAuthorization: Bearer {MASK} red\nend"
    assert (shown + last).replace("\r\n", "\n") == expected


def test_a_stream_that_begins_inside_a_token_leaves_its_line_out() -> None:
    stream = Stream(begins_inside=True)
    text, stream = stream.feed(TOKENS["classic personal"][10:30].encode())
    assert text == ""
    text, stream = stream.feed(TOKENS["classic personal"][30:].encode() + b"\nnext\n")
    assert text == "next\n"


def test_a_line_that_never_ends_is_shown_with_a_delay_and_its_tokens_masked() -> None:
    token = TOKENS["stateless installation"]
    log = "y" * 5000 + f" {token} " * 200
    stream, shown = Stream(), ""
    for start in range(0, len(log), 997):
        text, stream = stream.feed(log[start : start + 997].encode())
        shown += text
        assert len(stream.raw) + len(stream.held) < 4 * LONGEST
    assert shown.count(MASK) > 100
    assert token[4:30] not in shown
    assert token[-20:] not in shown


@pytest.mark.parametrize(
    "piece",
    ["eyJ", "://a@", "://", "ghp_", "-----BEGIN PRIVATE KEY-----", "Authorization: ", "A_KEY=", "\x1b[", "aaaa"],
)
def test_time_grows_no_faster_than_the_text(piece: str) -> None:
    def seconds(length: int) -> float:
        text = (piece * length)[:length]
        began = time.process_time()
        redact(text, ("aaaaaaaa",))
        Stream().feed(text.encode())
        return time.process_time() - began

    short, long = min(seconds(20_000) for _ in range(3)), seconds(160_000)
    assert long < 40 * short + 0.2  # 8 times the text; a square would be 64 times
