"""What a host is and can do, as its agent tells: its name, its room, its isolation, its place in Ray."""

import os
import shutil
import socket
import uuid
from functools import cached_property
from pathlib import Path

from launcher import host_files, ray_environment, sandbox
from launcher.node_types import Isolation, NodeFacts
from launcher.preparation import Site


class Facts:
    """The facts of one host; what can change is looked at with each question."""

    def __init__(self, site: Site, *, address: str, root_id: str) -> None:
        """Look at nothing yet.

        Args:
            site: the node's directory and the agent's environment.
            address: by which other nodes reach this one.
            root_id: the id of the node's directory.
        """
        self._site, self._address, self._root_id = site, address, root_id
        self._incarnation = uuid.uuid4().hex

    def told(self) -> NodeFacts:
        """All of them; the first call proves the isolation."""
        isolation, why = self._isolation
        return NodeFacts(
            host=socket.gethostname(),
            address=self._address,
            incarnation=self._incarnation,
            isolation=isolation,
            isolation_why=why,
            pid=os.getpid(),
            free_disk_bytes=shutil.disk_usage(self._site.root).free,
            memory_total_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            root_id=self._root_id,
            niceness=os.getpriority(os.PRIO_PROCESS, 0),
            oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
            ray=ray_environment.started_with(self._site.environ),
        )

    @cached_property
    def _isolation(self) -> tuple[Isolation, str]:
        root, storage = self._site.root, self._site.storage_dir
        ours = {"NODE_DIR": root, **({"STORAGE_DIR": storage} if storage else {}), **host_files.own(self._site.environ)}
        for name, why in host_files.exposed(ours).items():
            return "none", f"{name}: {why}; keep it elsewhere"
        capability = sandbox.probe(below=root)
        return ("bubblewrap", "") if capability.ok else ("none", capability.why)
