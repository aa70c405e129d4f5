"""The command line: `descent demo | up | web | worker | run | check | cancel | doctor`."""

import errno
import io
import os
import stat
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from ci_bot.settings import Settings, SettingsError

FAILED = 1
WRONG_USAGE = 2
MOST_DIGITS = 18
"""Of an experiment's number: the database takes no more."""

SAMPLES = ("single", "multi-grpc", "multi-mpi", "multi-torch")
"""The topologies that the demo has a repository for."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Push a commit, and the experiment that its config.yaml describes runs on your Ray cluster.",
)


def main() -> None:
    """The `descent` command."""
    try:
        app()
    except SettingsError as error:
        sys.exit(refuse(f"The settings can't be used:\n{error}"))


def refuse(message: str) -> int:
    """Say what is wrong, and give the exit code for wrong usage or set-up."""
    print(message, file=sys.stderr)
    return WRONG_USAGE


def settings() -> Settings:
    """The environment's settings, with logging set up by them."""
    from ci_bot.logs import configure_logging

    read = Settings.from_env(os.environ)
    configure_logging(read.log_level)
    return read


def _version(wanted: bool) -> None:
    if wanted:
        print(f"descent {version('descent')}")
        raise typer.Exit


@app.callback()
def options(
    shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""


def _sample(topology: str) -> str:
    if topology not in SAMPLES:
        raise typer.BadParameter(f"{topology!r} is not one of {', '.join(map(repr, SAMPLES))}.")
    return topology


@app.command()
def demo(
    topology: Annotated[
        str,
        typer.Option("--type", metavar="|".join(SAMPLES), callback=_sample, help="What the sample's experiment is."),
    ] = SAMPLES[0],
    stay: Annotated[bool, typer.Option("--stay", help="Leave everything up, for pushes of your own.")] = False,
) -> None:
    """Run everything once without any account: a local GitHub, the App, a local Ray head, a real push."""
    from ci_bot.demo import Demo

    raise typer.Exit(Demo(topology, stay=stay, environ=os.environ).run())


@app.command()
def up() -> None:
    """Start web, worker and, without RAY_ADDRESS, a local Ray head; end them with Ctrl-C."""
    from ci_bot.up import AlreadyUp, NotIsolated, PortTaken, Up
    from ci_bot.web.key import invitation
    from launcher.ray_head import HeadError

    read = settings()
    read.make_data_dir()

    def announce(url: str) -> None:
        print(f"\nDescent is up.\n{invitation(read, url)}\n", flush=True)

    def tell(text: str) -> None:
        os.write(sys.stdout.fileno(), f"{text}\n".encode())  # it may interrupt a print

    try:
        code = Up(read, os.environ, announce, tell).run()
    except (AlreadyUp, NotIsolated, PortTaken, HeadError, TimeoutError) as error:
        code = refuse(str(error))
    raise typer.Exit(code)


@app.command()
def web(quiet: Annotated[bool, typer.Option("--quiet", hidden=True, help="`up` prints the address.")] = False) -> None:
    """Serve the webhook, the dashboard and the API."""
    from ci_bot.up import PortTaken, free_port, require_port
    from ci_bot.web.key import invitation
    from ci_bot.web.serve import serve

    read = settings()
    read.make_data_dir()
    try:
        require_port(read.host, read.port)
    except PortTaken as error:
        raise typer.Exit(refuse(str(error))) from None
    read = replace(read, port=read.port or free_port(read.host))

    def announce() -> None:
        if not quiet:
            print(invitation(read, read.local_url), flush=True)

    raise typer.Exit(serve(read, announce))


@app.command()
def worker() -> None:
    """Run the walk: intake, launch and report. SIGTERM leaves what runs; SIGINT puts it back into the queue."""
    import asyncio

    from ci_bot.app import work

    read = settings()
    read.make_data_dir()
    raise typer.Exit(asyncio.run(work(read, os.environ)))


@app.command()
def run(
    repository: Annotated[Path, typer.Argument(metavar="[REPO]", help="A local git repository.")] = Path(),
    ref: Annotated[str | None, typer.Option("--ref", metavar="SHA", help="A commit; without, HEAD.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would start where, and start nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One object a line for each transition.")] = False,
) -> None:
    """Run the experiments of a commit of a local repository, without GitHub; artifacts are copied to here."""
    from ci_bot.run import Options
    from ci_bot.run import run as run_here

    raise typer.Exit(run_here(Options(repository, ref, plan, as_json), os.environ))


@app.command()
def check(
    files: Annotated[list[Path] | None, typer.Argument(help="Files; without any, the repository's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False,
) -> None:
    """Read configuration files and report every problem, with its line."""
    from ci_bot.config import SEARCH_ORDER
    from ci_bot.config import check as checking

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a message quotes what a terminal may not know
    found = files or [Path(name) for name in SEARCH_ORDER if Path(name).is_file()][:1]
    if not found:
        raise typer.Exit(refuse(f"No configuration file here; expected one of {', '.join(SEARCH_ORDER)}"))
    ok = True
    for path in found:
        try:
            source = _content(path)
        except OSError as error:
            raise typer.Exit(refuse(f"{path} can't be read: {error.strerror}")) from None
        parsed = checking.check_file(Path(os.path.abspath(path)), source)
        ok &= parsed.ok
        said = [checking.json_line(parsed, str(path))] if as_json else checking.lines(parsed, str(path))
        print("\n".join(said))
    raise typer.Exit(0 if ok else FAILED)


def _content(path: Path) -> bytes:
    """What a file holds, or of one that is too large just enough for the parser to say so.

    Raises:
        OSError: it can't be read, or is no file; a device or a pipe may have no end.
    """
    from ci_bot.config import MAX_BYTES

    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a folder" if stat.S_ISDIR(mode) else "it is no regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is no option, but no number either
def cancel(number: Annotated[str, typer.Argument(metavar="NUMBER", help="The experiment's number.")]) -> None:
    """Cancel an experiment."""
    from ci_bot.nudge import Nudge
    from ci_bot.records import Wish
    from ci_bot.store import experiments
    from ci_bot.store.engine import begin, is_there, open_engine

    if not (number.isascii() and number.isdigit()):
        raise typer.Exit(
            refuse(f"An experiment's number is expected, as the dashboard shows it after #; got {number!r}.")
        )
    read = settings()
    where = "the database of DATABASE_URL" if read.database_url else str(read.data_dir)
    if not is_there(read.store_url):
        words = f"There is no Descent in {where}: no database is there. "
        raise typer.Exit(refuse(f"{words}Set DATA_DIR or DATABASE_URL as `descent up` has it."))
    if len(number) > MOST_DIGITS:
        raise typer.Exit(refuse(f"There is no experiment {number} in {where}."))
    experiment = int(number)
    with begin(open_engine(read.store_url)) as connection:
        found = experiments.get(connection, experiment)
        if found is None:
            raise typer.Exit(refuse(f"There is no experiment {experiment} in {where}."))
        wished = experiments.wish(
            connection, experiment, Wish("the command line", "cancelled from the command line", time.time())
        )
    Nudge(read.data_dir / "nudge.sock").send()
    if wished:
        print(f"Experiment {experiment} ({found.name}) is being cancelled.")
    else:
        print(f"Experiment {experiment} ({found.name}) is {found.state.words.lower()} already; nothing was changed.")
    raise typer.Exit(0 if wished or found.wish else FAILED)


@app.command()
def doctor() -> None:
    """Check the set-up: settings, database, disk, Ray, isolation, GitHub; say what to do about each problem."""
    import asyncio

    from ci_bot.doctor import examine

    raise typer.Exit(asyncio.run(examine(os.environ)))


if __name__ == "__main__":
    main()
