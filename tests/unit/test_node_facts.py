"""What a node says of its isolation before it has proven any."""

from pathlib import Path

import pytest

from launcher.node_facts import Facts
from launcher.preparation import Site


@pytest.mark.parametrize(
    ("name", "root", "storage", "environ"),
    [
        ("NODE_DIR", "/opt", None, {}),
        ("STORAGE_DIR", "", "/opt/storage", {}),
        ("HOME", "", None, {"HOME": "/opt/me"}),
        ("RAY_AUTH_TOKEN_PATH", "", None, {"RAY_AUTH_TOKEN_PATH": "/usr/share/token"}),
    ],
)
def test_a_node_isolates_nothing_where_commands_could_read_what_is_ours(
    tmp_path: Path, name: str, root: str, storage: str | None, environ: dict[str, str]
) -> None:
    site = Site(Path(root or tmp_path), Path(storage) if storage else None, environ)
    facts = Facts(site, address="10.0.0.1", root_id="x").told()
    assert facts.isolation == "none"
    assert facts.isolation_why.startswith(f"{name}: ")
    assert "which every command can read" in facts.isolation_why
