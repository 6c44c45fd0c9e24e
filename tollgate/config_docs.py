"""Writes the tables of docs/configuration.md from the settings classes: `python -m tollgate.config_docs FILE`."""

import re
import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from chassis.settings import documented
from tollgate.processes import settings_types

_TABLE = re.compile(r"(<!-- settings: (?P<process>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """The page with each table between `<!-- settings: PROCESS -->` and `<!-- end -->` made anew."""
    types = settings_types()
    return _TABLE.sub(lambda found: f"{found[1]}{_table(types[found['process']])}{found[3]}", page)


def documented_processes(page: str) -> set[str]:
    """The processes that the page has a table for."""
    return {found["process"] for found in _TABLE.finditer(page)}


def _table(settings_type: type[BaseSettings]) -> str:
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for variable, field in documented(settings_type):
        lines.append(f"| `{variable}` | {_default(field)} | {_cell(field.description or '')} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value == "":
        return "-"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(file: str) -> None:
    """Brings a page up to date."""
    path = Path(file)
    path.write_text(with_tables(path.read_text()))


if __name__ == "__main__":
    main(sys.argv[1])
