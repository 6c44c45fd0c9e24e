"""What commands print: tables for people, JSON for programs, from one and the same document."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]

# Where nobody looks, nothing is cut: a pipe has no width.
_PIPE_WIDTH = 400


def console() -> Console:
    """Standard output as a terminal, or as a pipe that never wraps."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, soft_wrap=False)


def show(document: Document, as_json: bool, render: Callable[[Document], RenderableType]) -> None:
    """Prints a document: as it is for programs, rendered for people."""
    if as_json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        console().print(render(document))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """A plain table; the columns named in `right` hold numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """One thing's facts, one a line."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, Text(value))
    return made
