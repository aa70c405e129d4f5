"""The backend on a Ray cluster; only its driver process and its agents import ray."""

from launcher.ray_backend.client import Connection, RayBackend

__all__ = ["Connection", "RayBackend"]
