"""How one node's agent calls another's: by its name, from a thread that may wait."""

from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from launcher.backend import NodeUnavailable
from launcher.node_types import NodeError
from launcher.ray_backend.order import NAMESPACE, agent_name

ANSWER_S = 30.0


def ask(node_id: str, method: str, arguments: tuple[Any, ...]) -> Any:
    """One method of another node's agent.

    Raises:
        NodeError: as that node raised it.
        NodeUnavailable: its agent did not answer; it may or may not have done it.
    """
    try:
        agent = ray.get_actor(agent_name(node_id), namespace=NAMESPACE)
        return ray.get(agent.call.remote(method, arguments), timeout=ANSWER_S)
    except RayTaskError as error:
        if isinstance(error.cause, NodeError):
            raise error.cause from None
        raise NodeUnavailable(f"its agent failed in {method}: {_first_line(error.cause)}") from None
    except (RayError, TimeoutError, ValueError) as error:  # ValueError: there is no actor of that name now
        raise NodeUnavailable(f"its agent does not answer: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
