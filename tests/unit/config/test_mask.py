"""Credentials do not show."""

import pytest

from ci_bot.config import is_secret_name, mask, mask_text
from tests.unit.config.example import read


@pytest.mark.parametrize(
    "text",
    [
        "registryPassword: hunter2",
        "  apiKey: hunter2",
        "datasetAwsSecretAccessKey: [hunter2, hunter2]",
        "experimentEnv: {WANDB_API_KEY: hunter2, EPOCHS: 3}",
        "GITHUB_TOKEN: 'hunter2'",
        'a: {"MY_PASSWORD": "hunter2"}',
        "workspacePassword: |\n  hunter2\n  hunter2\nname: x",
        "command: API_KEY=hunter2 python train.py",
        "command: train --token hunter2 --epochs 3",
        "command: git clone https://me:hunter2@example.org/x",
        "a: [\nregistryPassword: hunter2",
        "params:\n- b\n registryPassword: hunter2",
        "SECRET_KEY:\n  x: hunter2",
        'experimentEnv: \'{"API_KEY": "hunter2"}\'',
        "apiKey: &k hunter2",
        "? apiKey\n: hunter2",
        "{[a]: b, apiKey: hunter2}",
    ],
)
def test_a_literal_credential_is_masked_whether_the_file_is_yaml_or_not(text: str) -> None:
    assert "hunter2" not in mask(text)
    assert "•••" in mask(text)


@pytest.mark.parametrize(
    "text",
    [
        "command: python train.py",
        "TOKEN: secret:token",
        "keyboard: qwerty",
        "monkey: 1",
        "a: 1 # a remark",
        "",
        "a: [b",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize(
    "token", ["AKIAABCDEFGHIJKLMNOP", "ghp_abcdefghijklmnopqrstuvwx", "github_pat_abcdefghijklmnopqrstuvwx"]
)
def test_a_token_of_a_known_form_is_masked_anywhere(token: str) -> None:
    assert token not in mask_text(f"echo {token} | sh")


@pytest.mark.parametrize(
    "name", ["API_KEY", "apiKey", "MY_TOKEN", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "KEY", "a-key"]
)
def test_names_of_credentials_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    [
        'apiKey: "hunter2" hunter2\n',
        "apiKey: hunter2: hunter2\n",
        "apiKey: @hunter2\n",
        "registryPassword: {a: [hunter2\n",
        "version: 1\ntype: single\nworker: {command: x}\nexperimentEnv: {API_KEY: [hunter2]}\n",
        "version: 1\ntype: 'API_KEY=hunter2'\nworker: {command: x}\n",
        "apiKey: hunter2\napiKey: hunter2\n",
    ],
)
def test_no_problem_shows_a_credential(text: str) -> None:
    found = read(text)
    assert found.errors
    assert "hunter2" not in found.model_dump_json()


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", ["a" * 250_000, "key=" * 60_000, "a_key: b\n" * 20_000, "--" * 100_000, "[" * 250_000])
def test_a_large_text_is_masked_in_time(text: str) -> None:
    assert mask(text)
