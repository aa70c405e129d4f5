"""What belongs to no unfinished attempt is ended, cleared and given back; a host that proves itself clean is used."""

import asyncio
from dataclasses import dataclass
from functools import partial

import structlog

from ci_bot.records import Experiment
from ci_bot.store import quarantine, queue
from ci_bot.worker.books import Books
from ci_bot.worker.fetching import code_key
from launcher.backend import Backend, BackendError, NodeCapacity
from launcher.keep import Keep
from launcher.node_types import NodeError
from launcher.state import State

log = structlog.get_logger()


@dataclass(frozen=True)
class Sweep:
    """Clears what a crash left on nodes, in Ray and on our own disk."""

    books: Books
    backend: Backend
    keep: Keep
    grace_s: float

    async def run(self) -> None:
        """Look at everything once.

        What is there is listed before the rows are read: an attempt is on record before anything of it exists, so
        that what the rows don't know is over.

        Raises:
            BackendError: the cluster does not answer.
        """
        away = {each.host for each in await self.books.read(quarantine.hosts)}
        nodes = (await self.backend.capacity()).alive
        there = await asyncio.gather(*(self._inventory(node) for node in nodes))
        reserved = await self.backend.reservations()
        under_way = await self.books.read(queue.under_way)
        groups = {_group(each) for each in under_way}
        ending = {_group(each) for each in under_way if each.state is State.NETWORK_TEARDOWN}
        dirty: set[str] = set()
        doubtful: set[str] = set()
        for node, keys in zip(nodes, there, strict=True):
            foreign = [key for key in keys or () if _group_of(key) not in groups]
            if keys is None or not await self._clear(node, foreign):
                dirty.add(node.host)
            if any(_group_of(key) in ending for key in keys or ()):
                doubtful.add(node.host)  # its own drive is about to say
        for host in away & {node.host for node in nodes} - dirty - doubtful:
            await self.books.write(partial(quarantine.remove, host=host))
        # New gangs avoid hosts in quarantine; one that is just being placed may have been asked for before.
        if dirty <= away and not (dirty and any(map(_is_being_placed, under_way))):
            for name in set(reserved) - groups:
                await self.backend.release(name)
        self.keep.forget_code({code_key(each) for each in await self.books.read(queue.commits)})

    async def _inventory(self, node: NodeCapacity) -> list[str] | None:
        """What is on a node; None when it does not say."""
        try:
            return await self.backend.agent(node.node_id).inventory()
        except (BackendError, NodeError) as error:
            log.warning("a node could not be swept", host=node.host, why=str(error))
            return None

    async def _clear(self, node: NodeCapacity, keys: list[str]) -> bool:
        """Whether nothing of these attempts is left on the node."""
        agent, clean = self.backend.agent(node.node_id), True
        try:
            for key in keys:
                await agent.stop(key, self.grace_s)
                clean &= (await agent.clean(key)).empty
        except (BackendError, NodeError) as error:
            log.warning("a node could not be swept", host=node.host, why=str(error))
            return False
        return clean


def _group(experiment: Experiment) -> str:
    return f"exp-{experiment.id}-a{experiment.progress.attempt}"


def _is_being_placed(experiment: Experiment) -> bool:
    return experiment.state is State.PROVISIONING and not experiment.held.nodes


def _group_of(key: str) -> str:
    """The group of an attempt's key on a node."""
    return key.rsplit("-n", 1)[0]
