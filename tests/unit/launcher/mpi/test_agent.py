"""How the launch agent understands what an mpirun calls it with."""

import pytest

from launcher.mpi.agent import STAY, understand


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["rank1", "orted", "-mca", "ess", '"env"'], ("rank1", 'orted -mca ess "env"')),  # the remote shell unquotes
        (["rank1", "PATH=/x:$PATH ; orted", "--daemonize", "-mca"], ("rank1", "PATH=/x:$PATH ; orted -mca")),
        (["rank1", "orted --daemonize -mca x"], ("rank1", "orted -mca x")),
        (["rank1", "orted", "--daemonized"], ("rank1", "orted --daemonized")),
        (["rank1", "A=/x/prted ; export A; prted", "-x"], ("rank1", f"A=/x/prted ; export A; prted {STAY} -x")),
        (["rank1", '"/v/bin/prted" --daemonize -x prted.y'], ("rank1", f'"/v/bin/prted" {STAY} -x prted.y')),
        (["-x", "rank1", '"/v/hydra_pmi_proxy"', "--port", "h:1"], ("rank1", '"/v/hydra_pmi_proxy" --port h:1')),
        (["-l", "somebody", "-p", "22", "-x", "rank1", "true"], ("rank1", "true")),
        (["somebody@rank1", "true"], ("rank1", "true")),
        (["rank1", "echo  two  blanks"], ("rank1", "echo  two  blanks")),
        (["rank1"], None),
        (["-l"], None),
        ([], None),
    ],
)  # fmt: skip
def test_the_host_and_its_command_are_found_as_ssh_would(argv: list[str], expected: tuple[str, str] | None) -> None:
    assert understand(argv) == expected
