"""Waiting for one of several events, or for a while, and leaving nothing behind."""

import asyncio


async def any_of(*events: asyncio.Event, limit_s: float | None = None) -> None:
    """Come back when one of the events is set, or after the limit."""
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiters, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
