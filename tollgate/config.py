"""`tollgate config check`: what each process would be told by this environment, and whether that is right."""

import difflib
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic_settings import BaseSettings
from rich.console import Group, RenderableType
from rich.text import Text

from chassis.settings import SettingsInvalid, documented, load, redacted, unknown_variables
from tollgate.folder import PEPPER_MIN_CHARS, edge_environment, service_environment
from tollgate.options import AsJson
from tollgate.output import Document, show, table
from tollgate.processes import Service, settings_types

app = typer.Typer(no_args_is_help=True, help="Settings: environment variables that begin with TOLLGATE_.")


class Process(StrEnum):
    """Whose settings."""

    ALL = "all"
    EDGE = "edge"
    AUTH = "auth"
    CATALOG = "catalog"
    USAGE = "usage"
    COMMAND = "command"


@app.callback()
def _config() -> None:
    """Keeps `check` a word of its own, though it is the only one."""


@app.command()
def check(
    process: Annotated[Process, typer.Argument(help="Whose settings.")] = Process.ALL,
    for_up: Annotated[
        bool, typer.Option("--up", help="As `tollgate up` starts them: with what it sets by itself.")
    ] = False,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", help="With --up: its data folder.", envvar="TOLLGATE_COMMAND_DATA_DIR")
    ] = Path(".tollgate"),
    as_json: AsJson = False,
) -> None:
    """Checks the settings in this environment and prints them, secrets masked. Fails if any is wrong or misspelt."""
    types = settings_types()
    chosen = types if process is Process.ALL else {process.value: types[process.value]}
    set_by_up = _set_by_up(data_dir.absolute()) if for_up else {}
    os.environ.update(set_by_up)
    processes = {name: _checked(settings_type, set_by_up) for name, settings_type in chosen.items()}
    unknown = [_suggestion(name, types) for name in unknown_variables(types.values())]
    valid = not unknown and all(each["valid"] for each in processes.values())
    show({"valid": valid, "processes": processes, "unknown": unknown}, as_json, _render)
    if not valid:
        raise typer.Exit(1)


def _set_by_up(data_dir: Path) -> dict[str, str]:
    """What `tollgate up` sets where the environment does not, without making anything."""
    told: dict[str, str] = {}
    for service in Service:
        told |= service_environment(data_dir, service, os.environ, pepper="x" * PEPPER_MIN_CHARS)
    told |= edge_environment(data_dir, None, dict.fromkeys(Service, "127.0.0.1:0"), os.environ)
    return told


def _checked(settings_type: type[BaseSettings], set_by_up: dict[str, str]) -> Document:
    try:
        settings = load(settings_type)
    except SettingsInvalid as failure:
        return {"valid": False, "problems": str(failure).splitlines(), "settings": []}
    rows = [
        {
            "variable": variable,
            "value": redacted(getattr(settings, name)),
            "source": "tollgate up" if variable in set_by_up else "set" if os.environ.get(variable) else "default",
            "description": field.description or "",
        }
        for (variable, field), name in zip(documented(settings_type), settings_type.model_fields, strict=True)
    ]
    return {"valid": True, "problems": [], "settings": rows}


def _suggestion(unknown: str, types: dict[str, type[BaseSettings]]) -> Document:
    known = [name for settings_type in types.values() for name, _ in documented(settings_type)]
    close = difflib.get_close_matches(unknown, known, n=1, cutoff=0.6)
    return {"variable": unknown, "suggestion": close[0] if close else None}


def _render(document: Document) -> RenderableType:
    parts: list[RenderableType] = []
    for name, checked in document["processes"].items():
        title = name if name in ("edge", "command") else f"{name}_svc"
        parts.append(
            Text(f"{title}: {'ok' if checked['valid'] else 'wrong'}", style="bold" if checked["valid"] else "bold red")
        )
        parts += [Text(f"  {problem}") for problem in checked["problems"]]
        if checked["settings"]:
            parts.append(
                table(
                    ["VARIABLE", "VALUE", "FROM", "WHAT IT IS"],
                    ([row["variable"], row["value"], row["source"], row["description"]] for row in checked["settings"]),
                )
            )
        parts.append("")
    for each in document["unknown"]:
        hint = f": did you mean {each['suggestion']}?" if each["suggestion"] else ""
        parts.append(Text(f"{each['variable']} means nothing to any process{hint}", style="bold red"))
    return Group(*parts)
