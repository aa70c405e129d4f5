"""The REST API: one request in, one answer out, with everything that GitHub does around an operation."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ci_bot.local_github import access, tokens
from ci_bot.local_github.calls import Answer, Call, Caller, Refusal
from ci_bot.local_github.faults import Rule
from ci_bot.local_github.git import GitError
from ci_bot.local_github.limits import HOUR_S, Limits
from ci_bot.local_github.operations import RATE_LIMIT, Door, Operation, match
from ci_bot.local_github.state import Json, World

VERSIONS = ("2022-11-28", "2026-03-10")
_SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."


@dataclass(frozen=True)
class Arrival:
    """A request as it came; `headers` in lower case, `path` without `/api/v3`."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    host: str


@dataclass(frozen=True)
class Outcome:
    """What goes out, and what the request log says of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    operation: str
    caller: str


def operation_id(method: str, path: str) -> str:
    """The id of the operation at an address, or an empty text."""
    if (method, path) == ("GET", "/rate_limit"):
        return RATE_LIMIT
    found = match(method, path)
    return found[0].id if found else ""


class Api:
    """Answers requests over a world, within limits."""

    def __init__(self, world: World, limits: Limits) -> None:
        """Keep both."""
        self._world = world
        self._limits = limits

    def respond(self, arrival: Arrival, rules: Sequence[Rule]) -> Outcome:
        """The answer to a request, faults included that change an answer."""
        operation, caller = operation_id(arrival.method, arrival.path), Caller()
        headers = {"X-GitHub-Request-Id": secrets.token_hex(12).upper(), "X-GitHub-Enterprise-Version": "3.19.0"}
        try:
            for rule in rules:
                _strike(rule, self._world.clock(), headers)
            self._check_headers(arrival)
            with self._world.lock:
                caller = tokens.identify(self._world, arrival.headers.get("authorization"))
            answer = self._counted(arrival, caller, rules)
        except Refusal as refusal:
            answer = Answer(refusal.body(), refusal.status, refusal.headers)
        except GitError as problem:
            answer = Answer(Refusal(500, f"git: {problem}").body(), 500)
        headers |= self._limits.headers(caller.limit_key, self._world.clock())
        outcome = _out(arrival, answer, operation, caller)
        return replace(outcome, headers={**headers, **outcome.headers})

    def _check_headers(self, arrival: Arrival) -> None:
        if not arrival.headers.get("user-agent"):
            words = "Request forbidden by administrative rules. Please make sure your request has a User-Agent header"
            raise Refusal(403, words)
        version = arrival.headers.get("x-github-api-version", VERSIONS[0])
        if version not in VERSIONS:
            raise Refusal(400, f"The API version {version} is not supported; known are {', '.join(VERSIONS)}.")

    def _counted(self, arrival: Arrival, caller: Caller, rules: Sequence[Rule]) -> Answer:
        key, now = caller.limit_key, self._world.clock()
        if (arrival.method, arrival.path) == ("GET", "/rate_limit"):
            core = self._limits.overview(key, now)
            return Answer({"resources": {"core": core, "search": core}, "rate": core})
        found = match(arrival.method, arrival.path)
        if found is None:
            raise Refusal(404, "Not Found")
        operation, parameters = found
        self._limits.admit(key, arrival.method, operation.creates, now)
        with self._world.lock:
            answer = self._called(arrival, caller, operation, parameters, rules)
        if answer.tag is not None and answer.tag == arrival.headers.get("if-none-match"):
            self._limits.refund(key, now)
        return answer

    def _called(
        self,
        arrival: Arrival,
        caller: Caller,
        operation: Operation,
        parameters: Mapping[str, str],
        rules: Sequence[Rule],
    ) -> Answer:
        late = [rule.seconds for rule in rules if rule.kind == "stale" and arrival.method == "GET"]
        call = Call(
            world=self._world,
            caller=caller,
            path=parameters,
            query=arrival.query,
            body=_json(arrival),
            accept=arrival.headers.get("accept", "*/*"),
            host=arrival.host,
            url=f"{self._world.api_url}{arrival.path}",
            as_of=self._world.clock() - max(late) if late else None,
        )
        return operation.handler(_let_in(call, operation))


def _out(arrival: Arrival, answer: Answer, operation: str, caller: Caller) -> Outcome:
    status, body, headers = answer.status, answer.raw, dict(answer.headers)
    if body:
        headers["Content-Type"] = answer.media_type
    if arrival.method == "GET" and answer.tag is not None:
        headers |= {"ETag": answer.tag, "Cache-Control": "private, max-age=60, s-maxage=60"}
        if arrival.headers.get("if-none-match") == answer.tag:
            status, body = 304, b""
    return Outcome(status, headers, body, operation, caller.limit_key)


def _strike(rule: Rule, now: float, headers: dict[str, str]) -> None:
    """Answer with the fault of a rule, where it is one that answers."""
    after = {} if rule.retry_after_s is None else {"Retry-After": str(rule.retry_after_s)}
    if rule.kind == "status":
        raise Refusal(rule.status or 500, "Server Error", headers=after)
    if rule.kind == "unauthorized":
        raise Refusal(401, "Bad credentials")
    if rule.kind == "secondary_limit":
        raise Refusal(rule.status or 403, _SECONDARY, headers=after)
    if rule.kind == "primary_limit":
        reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(now + (rule.seconds or HOUR_S)))}
        raise Refusal(rule.status or 403, "API rate limit exceeded for installation.", headers={**after, **reset})
    headers.setdefault("X-Local-Fault", rule.kind)


def _let_in(call: Call, operation: Operation) -> Call:
    caller, door = call.caller, operation.door
    if door is Door.APP and caller.kind != "app":
        raise Refusal(401, "A JSON web token could not be decoded")
    if door is Door.TOKEN and caller.kind in ("anonymous", "app"):
        raise Refusal(401, "Requires authentication")
    if door not in (Door.REPOSITORY, Door.BOT):
        return call
    repository = call.world.repository(call.path["owner"], call.path["repo"])
    seen = access.check(call.world, caller, repository, operation.needs)
    if door is Door.BOT and caller.kind != "installation":
        raise Refusal(403, "You must authenticate via a GitHub App.")
    return replace(call, subject=seen)


def _json(arrival: Arrival) -> Any:
    if not arrival.body:
        return None
    try:
        return json.loads(arrival.body)
    except ValueError as problem:
        raise Refusal(400, "Problems parsing JSON") from problem


def as_json(body: bytes, media_type: str) -> Json | list[Any] | str | None:
    """A body as the request log keeps it: JSON where it is, else how long it was."""
    if "json" in media_type:
        try:
            parsed: Json | list[Any] = json.loads(body)
        except ValueError:
            return body[:1000].decode(errors="replace")
        return parsed
    return f"{len(body)} bytes" if body else None
