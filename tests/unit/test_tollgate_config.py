"""Settings: what `tollgate config check` says, and whether docs/configuration.md is true."""

import json
import sys
from pathlib import Path

import pytest

from tollgate.__main__ import main
from tollgate.config_docs import documented_processes, with_tables
from tollgate.processes import settings_types

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
PEPPER = "a-pepper-that-nobody-may-see-0123456789"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("TOLLGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _check(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tollgate", "config", "check", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def _set_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("AUTH", "CATALOG", "USAGE"):
        monkeypatch.setenv(
            f"TOLLGATE_{service}_DATABASE_URL", "postgresql+asyncpg://user:secret-password@db.internal/tollgate"
        )
    monkeypatch.setenv("TOLLGATE_AUTH_KEY_PEPPER", PEPPER)


def test_the_configuration_page_is_current() -> None:
    page = PAGE.read_text()
    assert documented_processes(page) == set(settings_types())
    assert page == with_tables(page), "run `make docs`"


def test_every_setting_says_what_it_is() -> None:
    silent = [
        f"{name}.{field_name}"
        for name, settings_type in settings_types().items()
        for field_name, field in settings_type.model_fields.items()
        if not field.description
    ]
    assert not silent


def test_right_settings_pass_and_secrets_stay_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _set_all(monkeypatch)
    assert _check(monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "TOLLGATE_AUTH_KEY_PEPPER" in printed
    assert PEPPER not in printed
    assert "secret-password" not in printed


def test_a_missing_setting_is_named_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _check(monkeypatch, "auth", "--json") == 1
    [database, pepper] = json.loads(capsys.readouterr().out)["processes"]["auth"]["problems"]
    assert database.startswith("TOLLGATE_AUTH_DATABASE_URL: ")
    assert pepper.startswith("TOLLGATE_AUTH_KEY_PEPPER: ")


def test_a_wrong_value_is_named_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TOLLGATE_EDGE_LISTEN_PORT", "eighty")
    assert _check(monkeypatch, "edge") == 1
    assert "TOLLGATE_EDGE_LISTEN_PORT: " in capsys.readouterr().out


def test_a_misspelt_variable_fails_and_gets_a_suggestion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _set_all(monkeypatch)
    monkeypatch.setenv("TOLLGATE_EDGE_LISTEN_PROT", "80")
    assert _check(monkeypatch, "--json") == 1
    checked = json.loads(capsys.readouterr().out)
    assert checked["unknown"] == [{"variable": "TOLLGATE_EDGE_LISTEN_PROT", "suggestion": "TOLLGATE_EDGE_LISTEN_PORT"}]
    assert all(process["valid"] for process in checked["processes"].values())


def test_what_up_sets_by_itself_need_not_be_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _check(monkeypatch, "--up", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["processes"]["auth"]["settings"]
    [database] = [row for row in rows if row["variable"] == "TOLLGATE_AUTH_DATABASE_URL"]
    assert database["source"] == "tollgate up"
    assert not list(tmp_path.iterdir()), "a check makes no pepper and no folder"
