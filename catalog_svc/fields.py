"""Reading the keys of one group in a document: typed, bounded, and every fault noted with its line.

A faulty or missing value is noted and replaced by something harmless, so that reading goes on and finds the rest.
"""

import difflib
import re
from collections.abc import Collection, Iterator
from collections.abc import Mapping as Dictionary
from datetime import UTC, date, datetime, time
from decimal import Decimal

from catalog_svc.problems import Problems, shown
from catalog_svc.tree import Listing, Mapping, Node, Scalar, described

MAX_LIST_ITEMS = 100
MAX_DECIMAL_CHARS = 40
MAX_SUGGESTIONS_FROM = 500  # a comparison with each known word, for each unknown one

_INTEGER = re.compile(r"[0-9]+(_[0-9]+)*")
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_MOMENT_WITHOUT_ZONE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]+")
_LOOKS_LIKE_EXPONENT = re.compile(r"[+-]?[0-9.]+[eE][+-]?[0-9]{1,2}")


class Section:
    """One group of keys. Notes unknown keys at once, with the nearest known one.

    Args:
        aliases: words that people write for one of our keys, so that the suggestion is right where spelling is not.
    """

    def __init__(
        self,
        node: Mapping,
        path: str,
        known: Collection[str],
        problems: Problems,
        aliases: Dictionary[str, str] | None = None,
    ) -> None:
        self.line = node.line
        self.path = path
        self._node = node
        self._known = known
        self._problems = problems
        self._note_unknown_keys(aliases or {})

    def __contains__(self, key: str) -> bool:
        return key in self._node.entries

    def line_of(self, key: str) -> int:
        """Where a key stands; the group's line where it is missing."""
        return self._node.entries[key][0] if key in self._node.entries else self.line

    def path_of(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def note(self, key: str, message: str) -> None:
        """Notes a fault at a key."""
        self._problems.add(self.line_of(key), self.path_of(key), message)

    def note_here(self, message: str) -> None:
        """Notes a fault of the whole group."""
        self._problems.add(self.line, self.path, message)

    def node(self, key: str) -> Node | None:
        """What stands under a key, of whatever shape; None where it is missing."""
        entry = self._node.entries.get(key)
        return entry[1] if entry is not None else None

    def text(
        self,
        key: str,
        default: str | None,
        what: str,
        *,
        chars_max: int = 200,
        pattern: re.Pattern[str] | None = None,
        secret: bool = False,
    ) -> str:
        """A text; `default` None means that it must be there. `secret` keeps the value out of messages."""
        given = self._scalar(key, what, required=default is None, secret=secret)
        if given is None:
            return default or ""
        if len(given) > chars_max:
            self.note(key, f"has {len(given)} characters; give at most {chars_max}")
        elif pattern is not None and not pattern.fullmatch(given):
            self.note(key, f"{'this' if secret else shown(given)} is not {what}")
        else:
            return given
        return default or ""

    def integer(self, key: str, default: int | None, minimum: int, maximum: int) -> int:
        """A whole number; underscores may group its digits."""
        what = f"a whole number from {minimum} to {maximum}"
        given = self._scalar(key, what, required=default is None)
        fallback = minimum if default is None else default
        if given is None:
            return fallback
        if len(given) > 30 or not _INTEGER.fullmatch(given) or not minimum <= int(given) <= maximum:
            self.note(key, f"{shown(given)} is not {what}")
            return fallback
        return int(given)

    def seconds(self, key: str, default: Decimal, maximum: int, *, zero_means: str = "") -> Decimal:
        """A time in seconds, to the millisecond. Zero is refused unless it means something."""
        what = f"a number of seconds from {'0' if zero_means else '0.001'} to {maximum}"
        what += f" (0: {zero_means})" if zero_means else ""
        given = self._scalar(key, what, required=False)
        if given is None:
            return default
        exact = decimal_from_text(given)
        if exact is None or exact > maximum or (exact == 0 and not zero_means) or exact * 1000 % 1 != 0:
            self.note(key, f"{shown(given)} is not {what}, with at most three decimal places")
            return default
        return exact

    def boolean(self, key: str, default: bool) -> bool:
        """`true` or `false`, nothing else."""
        given = self._scalar(key, "true or false", required=False)
        if given in ("true", "false"):
            return given == "true"
        if given is not None:
            self.note(key, f"{shown(given)} is not true or false; write one of these two words")
        return default

    def choice(self, key: str, default: str | None, allowed: Collection[str]) -> str:
        """One of a few words."""
        what = "one of " + ", ".join(allowed)
        given = self._scalar(key, what, required=default is None)
        if given in allowed:
            return str(given)
        if given is not None:
            self.note(key, f"{shown(given)} is not {what}{did_you_mean(given, allowed)}")
        return default or ""

    def words(
        self,
        key: str,
        default: tuple[str, ...],
        *,
        allowed: Collection[str] = (),
        pattern: re.Pattern[str] | None = None,
        what: str = "",
        at_least_one: bool = False,
    ) -> tuple[str, ...]:
        """A list of different words, out of `allowed` or of a `pattern`."""
        what = what or "one of " + ", ".join(allowed)
        node = self.node(key)
        if node is None:
            return default
        if not isinstance(node, Listing):
            self.note(key, f"is {described(node)}, not a list; write [first, second]")
            return default
        if len(node.items) > MAX_LIST_ITEMS or (at_least_one and not node.items):
            self.note(key, f"has {len(node.items)} entries; give {int(at_least_one)} to {MAX_LIST_ITEMS}")
            return default
        found: list[str] = []
        for index, item in enumerate(node.items):
            path = f"{self.path_of(key)}[{index}]"
            if not isinstance(item, Scalar) or item.is_null:
                self._problems.add(item.line, path, f"is {described(item)}; give {what}")
            elif not (item.text in allowed if allowed else pattern is None or pattern.fullmatch(item.text)):
                hint = did_you_mean(item.text, allowed)
                self._problems.add(item.line, path, f"{shown(item.text)} is not {what}{hint}")
            elif item.text in found:
                self._problems.add(item.line, path, f"{shown(item.text)} is given twice; keep one of them")
            else:
                found.append(item.text)
        return tuple(found)

    def day(self, key: str) -> date | None:
        """A date; None where it is not given."""
        given = self._scalar(key, "a date such as 2026-05-31", required=False)
        if given is None:
            return None
        try:
            if _DAY.fullmatch(given):
                return date.fromisoformat(given)
        except ValueError:
            pass
        self.note(key, f"{shown(given)} is not a date such as 2026-05-31")
        return None

    def moment(self, key: str) -> datetime | None:
        """A moment in UTC: a date (its first moment in UTC), or a date and time with a zone; None where not given."""
        what = "a date such as 2026-05-31, or a moment such as 2026-05-31T18:00:00Z"
        given = self._scalar(key, what, required=False)
        if given is None:
            return None
        try:
            if _DAY.fullmatch(given):
                return datetime.combine(date.fromisoformat(given), time(), UTC)
            if _MOMENT.fullmatch(given):
                return datetime.fromisoformat(given.upper().replace(" ", "T")).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        if _MOMENT_WITHOUT_ZONE.fullmatch(given):
            self.note(key, f"{shown(given)} has no time zone; add Z for UTC, or an offset such as +02:00")
        else:
            self.note(key, f"{shown(given)} is not {what}")
        return None

    def decimal(self, key: str) -> Decimal | None:
        """An exact decimal as it was written, never by way of a float; None where it is missing or faulty."""
        given = self._scalar(key, "a decimal such as 0.15", required=False)
        if given is None:
            return None
        exact = decimal_from_text(given)
        if exact is None:
            self.note(key, f"{shown(given)} is not a decimal such as 0.15{_decimal_hint(given)}")
        return exact

    def group(self, key: str, known: Collection[str], aliases: Dictionary[str, str] | None = None) -> "Section | None":
        """A group under a key; None where it is missing or of another shape."""
        node = self.node(key)
        if node is None:
            return None
        if not isinstance(node, Mapping):
            self.note(key, f"is {described(node)}; write `key: value` lines below it ({', '.join(known)})")
            return None
        return Section(node, self.path_of(key), known, self._problems, aliases)

    def groups(
        self,
        key: str,
        known: Collection[str],
        items_max: int,
        aliases: Dictionary[str, str] | None = None,
        if_empty: str = "",
    ) -> "Iterator[Section]":
        """Each group of a list under a key. `if_empty` says why an empty list is a fault, where it is one."""
        node = self.node(key)
        if node is None:
            return
        if not isinstance(node, Listing):
            self.note(key, f"is {described(node)}, not a list; start each entry with `- `")
            return
        if len(node.items) > items_max:
            self.note(key, f"has {len(node.items)} entries; at most {items_max} are allowed")
            return
        if if_empty and not node.items:
            self.note(key, f"is empty; {if_empty}")
        for index, item in enumerate(node.items):
            path = f"{self.path_of(key)}[{index}]"
            if isinstance(item, Mapping):
                yield Section(item, path, known, self._problems, aliases)
            else:
                self._problems.add(item.line, path, f"is {described(item)}; write `key: value` lines")

    def _scalar(self, key: str, what: str, *, required: bool, secret: bool = False) -> str | None:
        node = self.node(key)
        if node is None:
            if required:
                self.note(key, f"is missing; give {what}")
            return None
        if not isinstance(node, Scalar) or node.is_null:
            self.note(key, f"is {described(node)}; give {what}{'' if required else ', or leave the key out'}")
            return None
        return node.text

    def _note_unknown_keys(self, aliases: Dictionary[str, str]) -> None:
        for key, (line, _) in self._node.entries.items():
            if key in self._known:
                continue
            if key.lower() in aliases:
                hint = f"; did you mean {aliases[key.lower()]}?"
            else:
                hint = did_you_mean(key, self._known) or f"; the keys here are {', '.join(self._known)}"
            self._problems.add(line, self.path_of(shown(key)[1:-1]), f"unknown key{hint}")


def did_you_mean(given: str, known: Collection[str]) -> str:
    """A suggestion for a misspelt word, or nothing."""
    if len(known) > MAX_SUGGESTIONS_FROM:
        return ""
    near = difflib.get_close_matches(given[:100].lower().replace("-", "_"), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def decimal_from_text(text: str) -> Decimal | None:
    """A plain decimal without its trailing zeros; None where the text is anything else."""
    if len(text) > MAX_DECIMAL_CHARS or not _DECIMAL.fullmatch(text):
        return None
    return Decimal(text.rstrip("0").rstrip(".") or "0") if "." in text else Decimal(text)


def plain(value: Decimal) -> str:
    """A decimal as a string that never has an exponent, nor zeros at the end of its fraction."""
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def _decimal_hint(given: str) -> str:
    if _LOOKS_LIKE_EXPONENT.fullmatch(given):
        return f"; write it without an exponent: {plain(Decimal(given))}"
    if given.lstrip("+-").lower().lstrip(".") in ("nan", "inf", "infinity"):
        return "; give a number"
    if given.startswith("-"):
        return "; a price cannot be negative"
    if given.startswith("."):
        return f"; write 0{given[:20]}"
    if any(sign in given for sign in "$€£") or "usd" in given.lower():
        return "; write the number alone, it is always USD"
    if "," in given or "_" in given:
        return "; use a point for the fraction and nothing between the other digits"
    return f", of at most {MAX_DECIMAL_CHARS} characters" if len(given) > MAX_DECIMAL_CHARS else ""
