"""The doctor against a real local GitHub, a real database and this host; there is no Ray."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ci_bot.demo import local_github
from ci_bot.doctor import examine
from ci_bot.local_github.control import Control
from ci_bot.web.manifest import template
from tests.e2e.stack import wait_for


@dataclass
class Clinic:
    """A local GitHub with an App as app.yml describes it, and the environment that reaches it."""

    control: Control
    app_id: int
    environ: dict[str, str]

    def examine(self, capsys: pytest.CaptureFixture[str], **more: str) -> tuple[int, dict[str, list[str]]]:
        """The exit code, and the lines by what they are about."""
        code = asyncio.run(examine(self.environ | more))
        said: dict[str, list[str]] = {}
        for line in capsys.readouterr().out.splitlines():
            said.setdefault(line[9:21].strip(), []).append(f"{line[:9].strip()}: {line[22:]}")
        return code, said


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with local_github(tmp_path_factory.mktemp("hub") / "github") as control:
        yield control
        control.close()


@pytest.fixture
def clinic(hub: Control, tmp_path: Path, request: pytest.FixtureRequest) -> Clinic:
    manifest = template()
    name = f"descent-{abs(hash(request.node.name)) % 10**8}"
    app = hub.create_app(
        name,
        "http://127.0.0.1:1/webhook",
        permissions=manifest["default_permissions"],
        events=manifest["default_events"],
        owner="octo",
        webhook_secret="a-secret-of-the-webhook",
    )
    environ = {
        "PATH": os.environ["PATH"],
        "DATA_DIR": str(tmp_path / "data"),
        "GITHUB_URL": hub.url,
        "GITHUB_API_URL": hub.api_url,
        "GITHUB_APP_ID": str(app["id"]),
        "GITHUB_PRIVATE_KEY": app["pem"],
        "GITHUB_WEBHOOK_SECRET": app["webhook_secret"],
        "ISOLATION": "none",
    }
    return Clinic(hub, app["id"], environ)


def test_a_good_set_up_has_no_problem_and_says_that_there_is_no_ray(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    clinic.control.create_repository("octo/digits")
    clinic.control.install(clinic.app_id, "octo")
    code, said = clinic.examine(capsys)
    assert code == 0, [line for lines in said.values() for line in lines if "problem" in line]
    assert said["settings"] == ["ok: the environment can be read"]
    assert "is ours and takes files" in said["data dir"][0]
    assert "can be written to" in said["database"][0]
    assert said["worker"][0].startswith("warning: no worker runs")
    assert said["ray"] == [
        "warning: there is no Ray head → `descent up` starts one; for your own cluster set RAY_ADDRESS"
    ]
    assert f"number {clinic.app_id}" in said["github"][0]
    assert said["permissions"] == ["ok: as in app.yml"]
    assert said["events"] == ["ok: as in app.yml"]
    assert "ok: octo gives access to 1 repository" in said["installation"]
    assert "calls are left" in said["rate limit"][0]
    assert said["webhook"] == ["ok: PUBLIC_URL is empty: deliveries are fetched from GitHub every 15 s"]
    assert said["clock"] == ["ok: this host's clock agrees with GitHub's"]


def test_a_key_of_another_app_is_a_problem_with_advice(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = clinic.examine(capsys, GITHUB_APP_ID="999999")
    assert code == 1
    assert said["github"][-1].startswith("problem: ")
    assert "are GITHUB_APP_ID and the private key of one App" in said["github"][-1]


def test_a_github_that_can_not_be_reached_is_a_sentence(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = clinic.examine(capsys, GITHUB_API_URL="http://127.0.0.1:1")
    assert code == 1
    assert "can this host reach http://127.0.0.1:1?" in said["github"][-1]


def test_a_webhook_that_does_not_arrive_is_a_problem_where_github_is_to_reach_us(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    def tried() -> bool:
        return any(each["status_code"] for each in clinic.control.deliveries() if each["app_id"] == clinic.app_id)

    wait_for(tried, 10, lambda: str(clinic.control.deliveries()))
    code, said = clinic.examine(capsys, PUBLIC_URL="https://descent.example")
    assert code == 1
    assert said["webhook"][0].startswith("problem: the last delivery did not arrive")


def test_without_an_app_it_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data"), "ISOLATION": "none"}
    code, said = Clinic(None, 0, environ).examine(capsys)  # type: ignore[arg-type]
    assert code == 1
    assert "open /setup" in said["github"][0]
    (tmp_path / "data" / "app.json").write_text("{")
    (tmp_path / "data" / "app.json").chmod(0o644)
    code, said = Clinic(None, 0, environ).examine(capsys)  # type: ignore[arg-type]
    assert "app.json can't be read" in said["github"][0]
    assert "has mode 0644" in said["data dir"][0]


@pytest.mark.parametrize("isolation", ["auto", "none"])
def test_what_every_command_could_read_is_a_problem_where_commands_are_isolated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], isolation: str
) -> None:
    environ = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data"), "HOME": "/opt/descent-nobody"}
    _, said = Clinic(None, 0, environ).examine(capsys, ISOLATION=isolation)  # type: ignore[arg-type]
    found = [line for line in said["isolation"] if "HOME: /opt/descent-nobody is below /opt" in line]
    assert [line.partition(":")[0] for line in found] == ([] if isolation == "none" else ["problem"])


def test_every_unusable_setting_is_told_and_nothing_else_is_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = asyncio.run(examine({"DATA_DIR": str(tmp_path / "data"), "PORT": "many", "ISOLATION": "maybe"}))
    said = capsys.readouterr().out.splitlines()
    assert code == 1
    assert [line.split()[:3] for line in said] == [
        ["problem", "settings", "PORT:"],
        ["problem", "settings", "ISOLATION:"],
    ]
    assert not (tmp_path / "data").exists()


def test_a_database_that_is_none_and_a_cluster_that_does_not_answer_are_sentences(
    clinic: Clinic, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ci_bot.doctor.cluster.REACH_S", 0.1)
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "descent.db").write_bytes(b"no database" * 1000)
    (tmp_path / "machines.yaml").write_text("P4000: {gpu: 1}\nK80: 3\n")
    more = {"RAY_ADDRESS": "127.0.0.1:1", "MACHINES": str(tmp_path / "machines.yaml")}
    code, said = clinic.examine(capsys, **more)
    assert code == 1
    assert said["database"][0].startswith("problem: ")
    assert len(said["machines"]) == 2
    assert "ray-token can't be read" in said["ray"][0]
    assert said["ray"][1].startswith("problem: 127.0.0.1:1: ")


def test_the_command_shows_no_secret(clinic: Clinic) -> None:
    password = "hunter-two-two"
    environ = clinic.environ | {"DATABASE_URL": f"postgresql://me:{password}@127.0.0.1:1/none"}
    done = subprocess.run(
        [sys.executable, "-m", "ci_bot.cli", "doctor"],
        env=environ | {"METRICS_TOKEN": "metrics-metrics"},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    for secret in (password, environ["GITHUB_WEBHOOK_SECRET"], "metrics-metrics", "PRIVATE KEY"):
        assert secret not in done.stdout + done.stderr
