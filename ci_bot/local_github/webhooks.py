"""Webhooks: which App gets an event, the signed request it becomes, and the courier that brings it once."""

import asyncio
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from dataclasses import replace

import httpx2 as httpx

from ci_bot.local_github import shapes
from ci_bot.local_github.access import granted
from ci_bot.local_github.calls import Refusal
from ci_bot.local_github.faults import Faults, Rule
from ci_bot.local_github.state import App, Delivery, Installation, Json, Repository, World

DELIVERY_TIMEOUT_S = 10.0
LARGEST_PAYLOAD = 25 * 2**20
Task = asyncio.Task[None]
# https://docs.github.com/webhooks/webhook-events-and-payloads: what an App must be allowed to read for an event
_NEEDS = {
    "push": "contents",
    "create": "contents",
    "delete": "contents",
    "pull_request": "pull_requests",
    "check_run": "checks",
    "check_suite": "checks",
    "merge_group": "merge_queues",
    "issue_comment": "issues",
    "repository": "metadata",
}
_ALWAYS = ("installation", "installation_repositories", "ping")
EVENTS = tuple(_NEEDS)


def needed_permission(event: str) -> str | None:
    """The permission without which an App cannot subscribe to an event."""
    return _NEEDS.get(event)


def signatures(secret: str | None, body: bytes) -> dict[str, str]:
    """The two signature headers, over the raw bytes; none without a secret."""
    if not secret:
        return {}
    key = secret.encode()
    return {
        "X-Hub-Signature": "sha1=" + hmac.new(key, body, hashlib.sha1).hexdigest(),
        "X-Hub-Signature-256": "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest(),
    }


def wants(installation: Installation, event: str, action: str | None) -> bool:
    """Whether an installation gets an event: subscribed and allowed, or told without asking."""
    if event in _ALWAYS:
        return True
    if installation.suspended_at is not None:
        return False
    if event in ("check_run", "check_suite"):
        # an App that may write checks is subscribed by that alone
        if granted(installation.permissions, [("checks", "write")]):
            return True
        if action in ("rerequested", "requested_action", "requested"):
            return False
    allowed = [(_NEEDS[event], "read")] + ([("pull_requests", "read")] if event == "issue_comment" else [])
    return event in installation.events and granted(installation.permissions, allowed)


def emit(world: World, repository: Repository, event: str, payload: Json, only_app: int | None = None) -> None:
    """Send an event of a repository to every App that is to have it; `payload` lacks repository and installation."""
    owner = world.account(repository.owner)
    common = {"repository": shapes.repository(world, repository)}
    if owner.type == "Organization":
        common["organization"] = shapes.account(world, owner)
    for installation in list(world.installations.values()):
        if only_app is not None and installation.app_id != only_app:
            continue
        if world.covers(installation, repository) and wants(installation, event, payload.get("action")):
            node = shapes.node_id("Integration Installation", installation.id)
            whole = {**payload, **common, "installation": {"id": installation.id, "node_id": node}}
            dispatch(world, world.apps[installation.app_id], event, whole)


def dispatch(world: World, app: App, event: str, payload: Json) -> None:
    """Send an event to one App, if it has a webhook at all."""
    if app.webhook_url is None:
        return
    body = json.dumps(payload, separators=(",", ":")).encode()
    if len(body) > LARGEST_PAYLOAD:
        return  # GitHub sends none so large, and says nothing of it
    action = payload.get("action")
    guid = str(uuid.uuid4())
    headers = {
        "User-Agent": "GitHub-Hookshot/10ca1gh",
        "Accept": "*/*",
        "Content-Type": "application/json",
        "X-GitHub-Delivery": guid,
        "X-GitHub-Event": event,
        "X-GitHub-Hook-ID": str(app.hook_id),
        "X-GitHub-Hook-Installation-Target-ID": str(app.id),
        "X-GitHub-Hook-Installation-Target-Type": "integration",
        "X-GitHub-Enterprise-Host": world.html_url.removeprefix("http://"),
        "X-GitHub-Enterprise-Version": "3.19.0",
        **signatures(app.webhook_secret, body),
    }
    with world.lock:
        installation_id = (payload.get("installation") or {}).get("id")
        repository_id = (payload.get("repository") or {}).get("id")
        number = world.next_id()
        world.send(
            Delivery(
                number,
                guid,
                app.id,
                event,
                action,
                installation_id,
                repository_id,
                world.clock(),
                False,
                app.webhook_url,
                headers,
                body,
            )
        )


def redeliver(world: World, delivery: Delivery) -> None:
    """Send a delivery again: the same GUID and bytes, a new id, signed with the secret of today."""
    app = world.apps[delivery.app_id]
    if app.webhook_url is None:
        raise Refusal(422, "Validation Failed", [{"resource": "Hook", "code": "custom", "message": "No webhook URL"}])
    headers = {**delivery.request_headers, **signatures(app.webhook_secret, delivery.body)}
    with world.lock:
        again = replace(
            delivery,
            id=world.next_id(),
            delivered_at=world.clock(),
            redelivery=True,
            url=app.webhook_url,
            request_headers=headers,
            status="pending",
            status_code=0,
        )
        world.send(again)


class Courier:
    """Brings deliveries to their Apps, each once, as tasks of one event loop."""

    def __init__(self, world: World, faults: Faults) -> None:
        """Be ready; `start` makes it work."""
        self._world = world
        self._faults = faults
        self._held: list[Delivery] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        """Begin to take deliveries, from any thread."""
        self._loop = asyncio.get_running_loop()
        # no proxy of the environment: webhooks go to this machine
        self._client = httpx.AsyncClient(timeout=DELIVERY_TIMEOUT_S, trust_env=False)
        self._world.send = self._hand_over

    async def stop(self) -> None:
        """End what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _hand_over(self, delivery: Delivery) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, delivery)

    def _take(self, delivery: Delivery) -> None:
        hits = {rule.kind: rule for rule in self._faults.for_event(delivery.event, delivery.action)}
        if "vanish" in hits:
            return
        if "hold" in hits:
            self._held.append(delivery)
            return
        sent: Task | None = None
        if "lose" in hits:
            self._log(replace(delivery, status="failed to connect to host", status_code=502))
        else:
            sent = self._begin(delivery, delay=hits.get("delay"))
        if "double" in hits:
            self._begin(delivery)
        late = [each for each in self._held if each.repository_id == delivery.repository_id]
        self._held = [each for each in self._held if each.repository_id != delivery.repository_id]
        for each in late:
            self._begin(each, after=sent)

    def _begin(self, delivery: Delivery, *, delay: Rule | None = None, after: Task | None = None) -> Task:
        wait_s = delay.seconds if delay is not None else 0.0
        task = asyncio.get_running_loop().create_task(self._bring(delivery, wait_s, after))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _log(self, delivery: Delivery) -> None:
        with self._world.lock:
            self._world.deliveries[delivery.id] = delivery

    async def _bring(self, delivery: Delivery, wait_s: float, after: Task | None) -> None:
        if after is not None:
            await asyncio.wait({after})
        if wait_s:
            await asyncio.sleep(wait_s)
        began = asyncio.get_running_loop().time()
        code, status, headers, body = await self._post(delivery)
        took = round(asyncio.get_running_loop().time() - began, 2)
        self._log(
            replace(
                delivery, duration_s=took, status=status, status_code=code, response_headers=headers, response_body=body
            )
        )

    async def _post(self, delivery: Delivery) -> tuple[int, str, Mapping[str, str], str]:
        assert self._client is not None  # noqa: S101 - start() made it
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_S):
                answer = await self._client.post(
                    delivery.url, content=delivery.body, headers=dict(delivery.request_headers)
                )
        except (TimeoutError, httpx.TimeoutException):
            return 504, "timed out", {}, ""
        except (httpx.HTTPError, httpx.InvalidURL):
            return 502, "failed to connect to host", {}, ""
        status = "OK" if answer.is_success else f"Invalid HTTP Response: {answer.status_code}"
        return answer.status_code, status, dict(answer.headers), answer.text[:65536]
