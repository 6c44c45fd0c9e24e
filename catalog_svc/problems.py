"""Everything that is wrong with a document, collected so that it is reported in one go."""

from dataclasses import dataclass

MAX_PROBLEMS = 50
MAX_PROBLEM_CHARS = 400


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault: where it is, and what to do about it."""

    line: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: {self.path}: " if self.path else f"line {self.line}: "
        return _shortened(where + self.message, MAX_PROBLEM_CHARS)


class DocumentInvalid(Exception):
    """A document that cannot be applied; `problems` in the order of lines, at most MAX_PROBLEMS of `count`."""

    def __init__(self, problems: tuple[Problem, ...], count: int) -> None:
        super().__init__("\n".join(str(each) for each in problems))
        self.problems = problems
        self.count = count


class Problems:
    """A list that keeps the first MAX_PROBLEMS and counts the rest."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, line: int, path: str, message: str) -> None:
        """Notes one. Lines count from 1; the path is empty where the whole document is meant."""
        self._count += 1
        if len(self._found) < MAX_PROBLEMS:
            self._found.append(Problem(line, path, message))

    def raise_if_any(self) -> None:
        """Ends the reading.

        Raises:
            DocumentInvalid: at least one was noted.
        """
        if self._found:
            raise DocumentInvalid(tuple(sorted(self._found)), self._count)


def shown(text: str) -> str:
    """A value from a document, short enough for a message and without line breaks."""
    return repr(_shortened(text, 60))


def _shortened(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else text[: chars_max - 3] + "..."
