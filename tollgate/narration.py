"""What `tollgate up` says while it works: a spinner on a terminal, plain lines in a pipe."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Narration:
    """Tells each step, and how long it took. One line per finished step either way, so a log reads like a screen."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, doing: str, done: str) -> Iterator[None]:
        """A step that takes a while; `done` is said when it has ended well."""
        start = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(f"{doing} ..."):
                yield
        else:
            self.say(f"{doing} ...")
            yield
        self._console.print(f"[green]ok[/] {done} [dim]({time.monotonic() - start:.1f} s)[/]")

    def say(self, line: str) -> None:
        """One line of text, as it is."""
        self._console.print(line, markup=False)

    def code(self, text: str) -> None:
        """Something to copy: never wrapped, never coloured, from the first column."""
        self._console.file.flush()
        print(text, flush=True)

    def heading(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/]")


def narration() -> Narration:
    """On standard output."""
    return Narration(Console(highlight=False, width=None if sys.stdout.isatty() else 400))
