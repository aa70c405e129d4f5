"""Secrets out of text, before anything is cut from it. Pure, in linear time.

Everything that matches is found in the original text first and then masked as one union of spans, so a secret inside
a longer one, or two that overlap, can't leave a rest behind.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import re2

from ci_bot.report.plain import after_break, clean

MASK = "***"
LONGEST = 16 * 1024
"""No secret that we know how to find is longer, in characters: a private key of 16 384 bits takes 12.7 KB."""

_SHORTEST_GIVEN = 4  # masking "1" or "no" would shred the log and hide nothing
_SHORTEST_PART = 8
_LONGEST_SEQUENCE = 64  # bytes of one terminal sequence

# Between a name and its value, in a shell, in Python, in JSON inside JSON.
_IS = rb"\\?[\"']?[ \t]*[:=,][ \t]*\\?[\"']?"

# Source: GitHub's "Behind GitHub's new authentication token formats" and, since 2026, its stateless
# ghs_<app id>_<JWT> of 380 to 520 characters: no fixed length may be assumed.
# A group, where there is one, is the secret.
_PATTERNS = tuple(
    re2.compile(pattern)
    for pattern in (
        rb"gh[pousr]_[A-Za-z0-9._-]{36,}",
        rb"github_pat_[A-Za-z0-9_]{22,}",
        rb"\bv1\.[0-9a-f]{40}\b",
        rb"eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){2,4}",
        rb"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
        rb"(?i)(?:secret_?access_?key|session_?token|security_?token)" + _IS + rb"([A-Za-z0-9/+=]{16,})",
        rb"(?i)authorization" + _IS + rb"(?:[a-z]+[ \t]+)?([^\s\"'\\]{8,})",
        rb"(?i)\bbearer[ \t]+([A-Za-z0-9._~+/=-]{16,})",
        rb"://([^\s/]+)@",
        # What experiments talk to: Hugging Face, OpenAI and Anthropic, Google, Slack, GitLab, PyPI.
        rb"\bhf_[A-Za-z0-9]{30,}",
        rb"\bsk-[A-Za-z0-9_-]{20,}",
        rb"\bAIza[0-9A-Za-z_-]{35}",
        rb"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
        rb"\bglpat-[A-Za-z0-9_-]{20,}",
        rb"\bpypi-[A-Za-z0-9_-]{32,}",
        # A dump of the environment.
        rb"\b[A-Z][A-Z0-9_]*(?:_KEY|SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIALS)=[\"']?([^\s\"']{8,})",
    )
)
_KEY_MARKER = re2.compile(rb"-----(BEGIN|END) [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")


@dataclass(frozen=True)
class _Span:
    start: int
    end: int
    context: int
    """Where the text begins that proves it a secret: `Authorization:` before the token itself."""


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """The text with every secret in it masked.

    Args:
        text: the whole of what is known; cut it afterwards, never before.
        secrets: values known to be secret; their base64, percent-encoded and JSON forms are masked too.
    """
    raw = text.encode("utf-8", "replace")
    return _mask(raw, _spans(raw, _forms(secrets))).decode("utf-8", "replace")


@dataclass(frozen=True)
class Stream:
    """Redaction of a log that comes in pieces: what might still become a secret is held back.

    A line is given out when it is complete. A line that doesn't end is given out up to its last `LONGEST` bytes.
    """

    secrets: tuple[str, ...] = ()
    begins_inside: bool = False
    """The first piece isn't the log's beginning: the rest of a line that it begins with is left out."""
    raw: bytes = b""
    """What is not cleaned yet."""
    held: bytes = b""
    """What is cleaned and not shown yet."""

    def feed(self, piece: bytes, *, final: bool = False) -> tuple[str, "Stream"]:
        """What may be shown now, cleaned and redacted, and the stream to go on with.

        Args:
            piece: the next bytes of the log.
            final: nothing follows, so nothing is held back.
        """
        if self.begins_inside:
            piece = after_break(piece)
            if not piece:
                return "", self
        raw = self.raw + piece
        clean_cut = len(raw) if final else _line_cut(raw)
        text = self.held + clean(raw[:clean_cut]).encode()
        spans = _spans(text, _forms(self.secrets))
        cut = len(text) if final else _safe_cut(text, spans)
        shown = _mask(text[:cut], [span for span in spans if span.start < cut])
        rest = replace(self, begins_inside=False, raw=raw[clean_cut:], held=text[cut:])
        return shown.decode("utf-8", "replace"), rest


def _line_cut(raw: bytes) -> int:
    """How much can be cleaned without the bytes that follow: whole lines, or most of one that is too long."""
    cut = max(raw.rfind(b"\n"), raw.rfind(b"\r", 0, -1)) + 1
    if len(raw) - cut > LONGEST:
        cut = _whole_character(raw, len(raw) - _LONGEST_SEQUENCE)
        sequence = raw.rfind(b"\x1b", cut - _LONGEST_SEQUENCE, cut)
        cut = cut if sequence < 0 else sequence
    return cut


def _whole_character(raw: bytes, position: int) -> int:
    """The position, or the beginning of the UTF-8 character that it lies in."""
    while 0 < position < len(raw) and raw[position] & 0xC0 == 0x80:
        position -= 1
    return max(position, 0)


def _safe_cut(raw: bytes, spans: list[_Span]) -> int:
    cut = max(raw.rfind(b"\n"), raw.rfind(b"\r")) + 1
    if len(raw) - cut > 2 * LONGEST:
        cut = _whole_character(raw, len(raw) - LONGEST)
    opened = _open_key(raw)
    if opened is not None and len(raw) - opened < LONGEST:
        cut = min(cut, opened)
    for span in sorted(spans, key=lambda span: span.context, reverse=True):
        if span.context < cut < span.end:
            cut = span.context
    return cut


def _open_key(raw: bytes) -> int | None:
    """Where a private key begins that has not ended yet."""
    start = None
    for marker in _KEY_MARKER.finditer(raw):
        start = marker.start() if marker.group(1) == b"BEGIN" else None
    return start


def _mask(raw: bytes, spans: list[_Span]) -> bytes:
    pieces: list[bytes] = []
    position = 0
    masked = False
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if span.end <= position:
            continue
        if span.start > position or not masked:
            pieces += [raw[position : span.start], MASK.encode()]
            masked = True
        position = span.end
    return b"".join([*pieces, raw[position:]])


def _spans(raw: bytes, forms: tuple[bytes, ...]) -> list[_Span]:
    return [*_key_spans(raw), *_pattern_spans(raw), *_form_spans(raw, forms)]


def _pattern_spans(raw: bytes) -> Iterator[_Span]:
    for pattern in _PATTERNS:
        match: Any
        for match in pattern.finditer(raw):
            start, end = match.span(1 if pattern.groups else 0)
            if raw[start:end] != b"git":  # ssh://git@github.com names everyone's user
                yield _Span(start, end, match.start())


def _key_spans(raw: bytes) -> Iterator[_Span]:
    """Private keys from BEGIN to END; one of the two may be missing, when the text begins or ends inside a key."""
    begin: int | None = None
    for marker in _KEY_MARKER.finditer(raw):
        if begin is not None:
            yield _key_span(raw, begin, min(marker.end(), begin + LONGEST))
        if marker.group(1) == b"BEGIN":
            begin = marker.start()
        else:
            yield _key_span(raw, max(begin or 0, marker.start() - LONGEST), marker.end())
            begin = None
    if begin is not None:
        yield _key_span(raw, begin, min(len(raw), begin + LONGEST))


def _key_span(raw: bytes, start: int, end: int) -> _Span:
    start = _whole_character(raw, start)
    return _Span(start, _whole_character(raw, end), start)


def _form_spans(raw: bytes, forms: tuple[bytes, ...]) -> Iterator[_Span]:
    for form in forms:
        start = raw.find(form)
        while start >= 0:
            yield _Span(start, start + len(form), start)
            start = raw.find(form, start + 1)


def _forms(secrets: tuple[str, ...]) -> tuple[bytes, ...]:
    """Every way in which the values may stand in a text."""
    forms: set[bytes] = set()
    for secret in secrets:
        value = secret.strip()
        if len(value) < _SHORTEST_GIVEN:
            continue
        forms |= {value.encode("utf-8", "replace"), quote(value, safe="", errors="replace").encode()}
        forms.add(json.dumps(value)[1:-1].encode())
        forms |= {line.strip().encode("utf-8", "replace") for line in value.split("\n") if len(line) >= _SHORTEST_PART}
        forms |= _base64_forms(value.encode("utf-8", "replace"))
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))


def _base64_forms(value: bytes) -> set[bytes]:
    """The characters that the value alone decides, at each of the three places it may have in a longer text."""
    forms = set()
    for offset in range(3):
        first = (offset * 8 + 5) // 6
        last = (offset + len(value)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            form = encode(b"\0" * offset + value)[first:last]
            if len(form) >= _SHORTEST_PART:
                forms.add(form)
    return forms
