"""Bodies and query strings, read strictly: what is unknown, doubled or of a wrong type is refused by its name. Pure."""

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from edge.management.shapes import CHOICES, UNIX_SECONDS_MAX
from edge.openai import errors
from edge.openai.errors import RequestError

PAGE_DEFAULT, PAGE_MAX = 20, 100
ID_CHARS_MAX = 100
MODEL_ID_CHARS_MAX = 200
QUERY_PARAMS_MAX = 50

ShapeT = TypeVar("ShapeT")
ValueT = TypeVar("ValueT")

_PLACE = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)
_INDEX = re.compile(r"\[[0-9]+\]$")
_FIELD = re.compile(r"field `(.*?)`", re.DOTALL)


def read_body(body: bytes, shape: type[ShapeT]) -> ShapeT:
    """The body as a shape.

    Raises:
        RequestError: 400: not JSON, an unknown or missing field, or a value that cannot be; named in `param`.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise _refused(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise errors.invalid_request("The body is not valid JSON in UTF-8.") from None


def _refused(problem: str) -> RequestError:
    """What msgspec says (`Expected `int`, got `str` - at `$.limits.tier``), with the field in front and in `param`."""
    place = _PLACE.search(problem)
    param = place.group(1) if place else ""
    said = problem[: place.start()] if place else problem
    field = _FIELD.search(said)
    if field is not None and said.startswith("Object "):
        param = f"{param}.{field.group(1)}" if param else field.group(1)
        if "unknown" in said:
            raise errors.invalid_request(f"`{errors.echo(param)}` is not a field of this request.", param=param)
        raise errors.invalid_request(f"`{errors.echo(param)}` is missing.", param=param)
    where = f"`{errors.echo(param)}`" if param else "The body"
    choice = CHOICES.get(_INDEX.sub("", param.rpartition(".")[2]))
    if choice is not None and not said.startswith("Expected `array"):
        raise errors.invalid_request(f"{where}: {choice}.", param=param)
    return errors.invalid_request(f"{where}: {said[:1].lower()}{errors.echo(said[1:])}.", param=param or None)


class Query:
    """The parameters of one query string, each at most once."""

    def __init__(self, text: str, known: Collection[str]) -> None:
        """
        Raises:
            RequestError: 400: a parameter that is not known, or one twice; names it.
        """
        self._values: dict[str, str] = {}
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_PARAMS_MAX, errors="strict")
        except ValueError:
            raise errors.invalid_request(
                f"The query is not UTF-8, or has more than {QUERY_PARAMS_MAX} parameters."
            ) from None
        for name, value in pairs:
            if name not in known:
                choice = ", ".join(f"`{each}`" for each in sorted(known)) or "none"
                raise errors.invalid_request(
                    f"`{errors.echo(name)}` is not a parameter of this request. Known: {choice}.", param=name
                )
            if name in self._values:
                raise errors.invalid_request(f"`{name}` is given twice.", param=name)
            if "\0" in value:
                raise errors.invalid_request(f"`{name}` has a NUL character.", param=name)
            self._values[name] = value

    def text(self, name: str, chars_max: int) -> str:
        """A text; empty where it is absent.

        Raises:
            RequestError: 400: given and empty, or too long.
        """
        return self._read(name, "", lambda value: value if 0 < len(value) <= chars_max else None, _chars(chars_max))

    def flag(self, name: str) -> bool:
        """`true` or `false`; false where it is absent."""
        return self._read(name, False, {"true": True, "false": False}.get, "give `true` or `false`")

    def page_size(self) -> int:
        """`limit`."""

        def read(value: str) -> int | None:
            return int(value) if re.fullmatch("[0-9]{1,3}", value) and 1 <= int(value) <= PAGE_MAX else None

        return self._read("limit", PAGE_DEFAULT, read, f"give 1 to {PAGE_MAX}")

    def moment(self, name: str) -> datetime | None:
        """Unix seconds, a UTC day such as 2027-01-31, or RFC 3339; None where it is absent."""
        return self._read(
            name, None, moment_from_text, "give Unix seconds, a UTC day such as 2027-01-31, or 2027-01-31T12:00:00Z"
        )

    def choices(self, name: str, known: Mapping[str, ValueT]) -> list[ValueT]:
        """A list with commas, each once; empty where it is absent."""

        def read(value: str) -> list[ValueT] | None:
            words = value.split(",")
            if len(set(words)) < len(words) or not known.keys() >= set(words):
                return None
            return [known[word] for word in words]

        return self._read(name, [], read, f"give some of {', '.join(known)}, each once, with commas")

    def _read(self, name: str, default: ValueT, read: Callable[[str], ValueT | None], expected: str) -> ValueT:
        value = self._values.get(name)
        if value is None:
            return default
        found = read(value)
        if found is None:
            raise errors.invalid_request(f"`{name}` is {errors.echo(value)!r}: {expected}.", param=name)
        return found


def require_order(start: datetime | None, end: datetime | None) -> None:
    """`from` and `to` of a query.

    Raises:
        RequestError: 400: the end is before the start.
    """
    if start is not None and end is not None and start > end:
        raise errors.invalid_request("`to` is before `from`.", param="to")


def moment_from_text(text: str) -> datetime | None:
    """A moment as a query gives it; None for what is none."""
    if re.fullmatch("[0-9]{1,12}", text):
        seconds = int(text)
        return datetime.fromtimestamp(seconds, UTC) if seconds <= UNIX_SECONDS_MAX else None
    if not text.isascii() or not re.fullmatch(r"\d{4}-\d\d-\d\d([Tt ].+)?", text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            return moment.replace(tzinfo=UTC) if len(text) == len("2027-01-31") else None
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _chars(chars_max: int) -> str:
    return f"give 1 to {chars_max} characters"
