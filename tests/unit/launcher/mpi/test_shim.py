"""What the shim makes of a command line that was written for Open MPI, when the mpirun is MPICH's."""

import os
from pathlib import Path

import pytest

from launcher.mpi import GENERATED_AT, SHIMS, shim
from launcher.mpi.shim import find, for_hydra, is_hydra, main, options, slots

FILES = {"/generated/hostfile": "rank0\nrank0\nrank1\n", "mine": "rank0 slots=4  # gpu\n\nrank1:3\nrank2 max_slots=9\n"}


def made_of(command: str, default: str | None = None) -> tuple[str, str | None]:
    argv, hostfile = for_hydra(command.split(), FILES.__getitem__, default)
    return " ".join(argv), hostfile


@pytest.mark.parametrize(
    ("command", "expected", "hostfile"),
    [
        ("-np 2 python train.py", "-np 2 python train.py", None),
        ("--allow-run-as-root -np 2 python train.py", "-np 2 python train.py", None),
        (
            "--allow-run-as-root -np 4 --hostfile mine python train.py -n 9",
            "-f {hostfile} -np 4 python train.py -n 9",
            "rank0:4\nrank1:3\nrank2:1\n",
        ),
        (
            "-machinefile /generated/hostfile -genv A=1 -genv B 2 python train.py",
            "-f {hostfile} -genv A=1 -genv B 2 -n 3 python train.py",
            "rank0:2\nrank1:1\n",
        ),
        ("--hostfile=mine -np=2 a -n=3", "-f {hostfile} -np 2 a -n=3", "rank0:4\nrank1:3\nrank2:1\n"),
        ("-genv=A=1 -genv=B 2 --ppn=1 a", "-genv A=1 -genv B 2 --ppn 1 a", None),
        ("-n 1 a : -n 2 b", "-n 1 a : -n 2 b", None),
        ("--version", "--version", None),
        ("--hostfile", "--hostfile", None),
    ],
)
def test_hydra_gets_what_it_understands(command: str, expected: str, hostfile: str | None) -> None:
    assert made_of(command) == (expected, hostfile)


def test_without_a_hostfile_the_default_one_gives_the_number() -> None:
    default = "/generated/hostfile"
    assert made_of("python train.py", default) == ("-f {hostfile} -n 3 python train.py", "rank0:2\nrank1:1\n")
    assert made_of("-n 1 python train.py", default) == ("-f {hostfile} -n 1 python train.py", "rank0:2\nrank1:1\n")
    assert made_of("-n=2 a", default) == ("-f {hostfile} -n 2 a", "rank0:2\nrank1:1\n")
    assert made_of("--hostfile=/generated/hostfile a", default) == made_of("a", default)
    assert made_of("-hosts=rank1 a", default) == ("-hosts rank1 a", None)
    assert made_of("-hosts rank1 python train.py", default) == ("-hosts rank1 python train.py", None)


def test_options_end_where_the_program_begins() -> None:
    assert options(["-n", "2", "-l", "prog", "-n", "3"]) == ([["-n", "2"], ["-l"]], ["prog", "-n", "3"])


def test_slots_are_counted_in_either_form() -> None:
    assert slots(FILES["mine"]) == [("rank0", 4), ("rank1", 3), ("rank2", 1)]
    assert slots(FILES["/generated/hostfile"]) == [("rank0", 2), ("rank1", 1)]


def program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    path.chmod(0o755)
    return str(path)


def test_the_next_mpirun_in_path_is_found(tmp_path: Path) -> None:
    shims, real = program(tmp_path / "shims/mpirun"), program(tmp_path / "real/mpirun")
    (tmp_path / "again").symlink_to(tmp_path / "shims")
    path = os.pathsep.join([f"{tmp_path}/again", f"{tmp_path}/shims/", f"{tmp_path}/absent", f"{tmp_path}/real"])
    assert find("mpirun", path, str(Path(shims).parent)) == real
    assert find("mpiexec", path, str(Path(shims).parent)) is None


@pytest.mark.parametrize(
    ("real", "beside", "expected"),
    [
        ("mpiexec.hydra", "", True),
        ("mpirun.mpich", "orted", True),
        ("orterun", "hydra_pmi_proxy", False),
        ("mpirun.openmpi", "hydra_pmi_proxy", False),
        ("prterun", "", False),
        ("mpirun", "hydra_pmi_proxy", True),  # the wheel of MPICH has copies instead of links
        ("mpirun", "mpiexec.hydra", True),  # Intel's is a script
        ("mpirun", "prted", False),
        ("mpirun", "", False),
    ],
)
def test_hydra_is_told_by_its_name_or_its_neighbours(tmp_path: Path, real: str, beside: str, expected: bool) -> None:
    made = program(tmp_path / "bin" / real)
    if beside:
        program(tmp_path / "bin" / beside)
    (tmp_path / "link").mkdir()
    (tmp_path / "link/mpirun").symlink_to(made)
    assert is_hydra(str(tmp_path / "link/mpirun")) is expected


@pytest.mark.parametrize(
    ("there", "expected"), [(None, "/generated/hostfile"), ("/node/a/generated", "/node/a/generated/hostfile")]
)
def test_what_is_generated_is_found_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str | None, expected: str
) -> None:
    real, called = program(tmp_path / "real/mpirun"), []
    monkeypatch.setattr(os, "execv", lambda *words: called.append(words))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / SHIMS), str(tmp_path / "real")]))
    if there is not None:
        monkeypatch.setenv(GENERATED_AT, there)
    main("mpirun", ["--hostfile", "/generated/hostfile", "a", "/generated"], str(tmp_path))
    main("mpirun", ["--hostfile=/generated/hostfile", "-n=1", "a"], str(tmp_path))
    assert called == [
        (real, ["mpirun", "--hostfile", expected, "a", "/generated"]),
        (real, ["mpirun", f"--hostfile={expected}", "-n=1", "a"]),
    ]


# --- what a person is told ---


def mpich(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Puts MPICH's mpirun into PATH; what is called in the end."""
    called: list[tuple[str, list[str]]] = []
    program(tmp_path / "real/mpirun")
    program(tmp_path / "real/hydra_pmi_proxy")
    monkeypatch.setattr(os, "execv", lambda *words: called.append(words))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / SHIMS), str(tmp_path / "real")]))
    return called


@pytest.mark.parametrize("text", ["", "\n# rank0\n", "rank0 slots=0\n", "rank0:0\nrank1 slots=0\n"])
@pytest.mark.parametrize("by_default", [False, True])
def test_a_hostfile_without_a_slot_is_named_and_nothing_is_called(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    by_default: bool,
) -> None:
    called, hostfile = mpich(tmp_path, monkeypatch), tmp_path / "hosts"
    hostfile.write_text(text)
    if by_default:
        monkeypatch.setenv(shim.HYDRA_HOST_FILE, str(hostfile))
    argv = [] if by_default else ["--hostfile", str(hostfile)]
    assert main("mpirun", [*argv, "prog"], str(tmp_path)) == 1
    assert called == []
    assert capsys.readouterr().err == (
        f"descent: mpirun: the hostfile {hostfile} names no host with a slot; write one host name a line\n"
    )


def test_a_host_without_a_slot_is_left_out() -> None:
    argv, hostfile = for_hydra(["-f", "some", "prog"], {"some": "rank0 slots=0\nrank1 slots=2\n"}.__getitem__, None)
    assert (" ".join(argv), hostfile) == ("-f {hostfile} -n 2 prog", "rank1:2\n")


def test_a_hostfile_that_can_not_be_read_or_held_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called, hostfile = mpich(tmp_path, monkeypatch), tmp_path / "hosts"
    assert main("mpirun", ["--hostfile", str(hostfile), "prog"], str(tmp_path)) == 1
    assert f"the hostfile {hostfile} can't be read" in capsys.readouterr().err
    hostfile.write_text("rank0\n")

    def full(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", full)
    assert main("mpirun", ["--hostfile", str(hostfile), "prog"], str(tmp_path)) == 1
    assert capsys.readouterr().err == "descent: mpirun: a hostfile can't be read: Too many open files\n"
    assert called == []


def test_without_a_path_the_usual_one_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = mpich(tmp_path, monkeypatch)
    monkeypatch.delenv("PATH")
    monkeypatch.setattr(os, "defpath", str(tmp_path / "real"))
    main("mpirun", ["-n", "2", "prog"], str(tmp_path))
    assert called == [(str(tmp_path / "real/mpirun"), ["mpirun", "-n", "2", "prog"])]


def test_a_directory_that_can_not_be_listed_may_have_an_mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    called = mpich(tmp_path, monkeypatch)
    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    main("mpirun", ["--allow-run-as-root", "-n", "2", "prog"], str(tmp_path))
    assert called == [(str(tmp_path / "real/mpirun"), ["mpirun", "-n", "2", "prog"])]
