"""The webhook of an App as the App sees it: its configuration, what was delivered, and delivering it again."""

import base64
import json
from dataclasses import replace

from ci_bot.local_github import webhooks
from ci_bot.local_github.apps import config_shape
from ci_bot.local_github.calls import Answer, Call, Refusal, invalid, link, not_found, page_numbers
from ci_bot.local_github.shapes import stamp
from ci_bot.local_github.state import Delivery, Json

# github.com keeps deliveries for 3 days
KEPT_S = 3 * 86400


def shape(delivery: Delivery) -> Json:
    """A line of the delivery log."""
    return {
        "id": delivery.id,
        "guid": delivery.guid,
        "delivered_at": stamp(delivery.delivered_at),
        "redelivery": delivery.redelivery,
        "duration": delivery.duration_s,
        "status": delivery.status,
        "status_code": delivery.status_code,
        "event": delivery.event,
        "action": delivery.action,
        "installation_id": delivery.installation_id,
        "repository_id": delivery.repository_id,
        "throttled_at": None,
    }


def _kept(call: Call) -> list[Delivery]:
    oldest = call.world.clock() - KEPT_S
    mine = [each for each in call.world.deliveries.values() if each.app_id == call.app.id]
    return sorted((each for each in mine if each.delivered_at >= oldest), key=lambda each: -each.id)


def list_deliveries(call: Call) -> Answer:
    """`apps/list-webhook-deliveries`: newest first, on from a cursor."""
    found, status = _kept(call), call.query.get("status")
    if status not in (None, "success", "failure"):
        raise invalid("HookDelivery", "status", "invalid")
    if status is not None:
        found = [each for each in found if (200 <= each.status_code < 400) == (status == "success")]
    if cursor := call.query.get("cursor"):
        after = _after(cursor)
        found = [each for each in found if each.id < after]
    _, size = page_numbers(call.query)
    headers = {}
    if len(found) > size:
        headers = link(call, {"next": {"cursor": base64.b64encode(f"v1_{found[size - 1].id}".encode()).decode()}})
    return Answer([shape(each) for each in found[:size]], headers=headers)


def _after(cursor: str) -> int:
    try:
        return int(base64.b64decode(cursor, validate=True).decode().removeprefix("v1_"))
    except ValueError as problem:
        raise Refusal(422, "Invalid cursor") from problem


def _delivery(call: Call) -> Delivery:
    number = call.number("delivery_id")
    for each in _kept(call):
        if each.id == number:
            return each
    raise not_found()


def get_delivery(call: Call) -> Answer:
    """`apps/get-webhook-delivery`: with what was sent and answered."""
    delivery = _delivery(call)
    whole = {
        "url": delivery.url,
        "request": {"headers": dict(delivery.request_headers), "payload": json.loads(delivery.body)},
        "response": {"headers": dict(delivery.response_headers), "payload": delivery.response_body},
    }
    return Answer(shape(delivery) | whole)


def redeliver(call: Call) -> Answer:
    """`apps/redeliver-webhook-delivery`."""
    webhooks.redeliver(call.world, _delivery(call))
    return Answer({}, 202)


def get_config(call: Call) -> Answer:
    """`apps/get-webhook-config-for-app`."""
    return Answer(config_shape(call.app))


def update_config(call: Call) -> Answer:
    """`apps/update-webhook-config-for-app`."""
    body = call.fields(("url", "content_type", "secret", "insecure_ssl"))
    url = body.get("url", call.app.webhook_url)
    if url is not None and not str(url).startswith(("http://", "https://")):
        raise invalid("Hook", "url", "invalid")
    if body.get("content_type", "json") != "json":
        raise invalid("Hook", "content_type", "invalid", "this server sends application/json only")
    changed = replace(call.app, webhook_url=url, webhook_secret=body.get("secret", call.app.webhook_secret))
    call.world.apps[changed.id] = changed
    return Answer(config_shape(changed))
