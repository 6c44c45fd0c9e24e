"""The top level of a request body: which members it has, and exactly where their values stand.

msgspec splits the body in C and validates all of it, nested values included (grammar, escapes, surrogate pairs, NaN and
Infinity). What it lacks is added here: UTF-8 inside values, a depth limit, and members given twice, which a dict hides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import accumulate

import msgspec

from edge.openai.errors import RequestError, echo, invalid_request

# Containers in containers, the body's own object counted. JSON schemas of tools reach about 20.
DEPTH_MAX = 64
# Objects and arrays in one member. A model's context of a million tokens cannot hold as many messages and tool calls;
# the limit bounds what a hostile body costs in the exact paths (about a microsecond per container).
CONTAINERS_MAX = 100_000

_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_name_of = msgspec.json.Decoder(str).decode


class Member(msgspec.Struct, frozen=True, gc=False):
    """One top-level member: its unescaped name, and its value as body[start:end]."""

    name: str
    start: int
    end: int


class Members(msgspec.Struct, frozen=True, gc=False):
    """The members of one JSON object."""

    body: bytes
    values: dict[str, msgspec.Raw]  # by unescaped name; the last value of a name given twice
    # Bytes between separators and what follows them, where every byte of the body is accounted for by `values`: no name
    # is given twice or has an escape. 0 for compact JSON, 1 for `", "` and `": "`. None: `walked` has the exact places.
    gap: int | None
    walked: tuple[Member, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether each member stands in the body once, by its unescaped name."""
        return self.gap is not None

    def __iter__(self) -> Iterator[Member]:
        """The members in the order of the body, those given twice included."""
        if self.gap is None:
            yield from self.walked
            return
        at = 1
        for name, value in self.values.items():
            start = at + len(name) + 3 + self.gap
            end = start + len(value)
            yield Member(name, start, end)
            at = end + 1 + self.gap

    def find(self, name: str) -> Member | None:
        """The only member of that name (the last one, if the caller has not refused a second)."""
        if name not in self.values:
            return None
        if self.gap is not None:
            at = 1
            for other, value in self.values.items():
                start = at + len(other) + 3 + self.gap
                if other == name:
                    return Member(name, start, start + len(value))
                at = start + len(value) + 1 + self.gap
        found = None
        for member in self:
            if member.name == name:
                found = member
        return found

    def value(self, member: Member) -> bytes:
        return self.body[member.start : member.end]


def scan(body: bytes) -> Members:
    """Split a body into its members.

    Costs about a third of a nanosecond per byte where the body is compact or spaced as json.dumps does, with each name
    once; else an exact walk. Depth is left to `check_nesting`, since most values are proven flat by their type.

    Raises:
        RequestError: 400; not UTF-8, not valid JSON, or not an object.
    """
    if not body.isascii():
        _check_text(body)
    try:
        values = _members_of(body)
    except msgspec.ValidationError:
        raise invalid_request("The request body must be a JSON object.") from None
    except msgspec.DecodeError as error:
        problem = str(error).removeprefix("JSON is malformed: ") if body else "it is empty"
        raise invalid_request(f"The request body is not valid JSON: {problem}.") from None
    except RecursionError:
        raise too_deep() from None
    count = len(values)
    names = "".join(values)
    # The shortest text that has these names and values. Whitespace, escapes in names, names beyond ASCII and a second
    # member of the same name can only make it longer, so equal length proves that there is none of them.
    shortest = len(names) + sum(map(len, values.values())) + 4 * count + 1
    if shortest == len(body):
        return Members(body, values, 0)
    if shortest + 2 * count - 1 == len(body) and count and "\\" not in names and _spaced(values) == body:
        return Members(body, values, 1)
    return Members(body, values, None, tuple(_walk(body, values)))


def _check_text(body: bytes) -> None:
    if body.startswith(b"\xef\xbb\xbf"):
        raise invalid_request("The request body must not start with a byte order mark.")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise invalid_request(f"The request body is not valid UTF-8 (byte {error.start}).") from None


def _spaced(values: dict[str, msgspec.Raw]) -> bytes:
    pieces: list[bytes | msgspec.Raw] = []
    for name, value in values.items():
        pieces += (b', "', name.encode(), b'": ', value)
    pieces[0] = b'{"'
    pieces.append(b"}")
    return b"".join(pieces)


_skip_blanks = re.compile(r"[ \t\n\r]*").match


def _nothing(_: str) -> None:
    """Numbers are only stepped over here; Python refuses to convert integers of more than 4,300 digits."""


_step = json.JSONDecoder(parse_int=_nothing, parse_float=_nothing).raw_decode


def _walk(body: bytes, values: dict[str, msgspec.Raw]) -> Iterator[Member]:
    """Every member of a body that is known to be valid, exactly.

    Latin-1 makes one character of each byte, so places in the text are places in the body; what is structure in JSON is
    ASCII and stays itself.
    """
    text = body.decode("latin-1")

    def blanks(at: int) -> int:
        match = _skip_blanks(text, at)
        return match.end() if match else at

    at = blanks(blanks(0) + 1)
    while text[at] != "}":
        end_of_name = _step(text, at)[1]
        name = _name_of(body[at:end_of_name])
        start = blanks(blanks(end_of_name) + 1)
        # Mostly msgspec has measured the value already; a second member of that name may have another one.
        end = start + len(values[name])
        if body[start:end] != bytes(values[name]) or (text[start] not in '"[{' and text[end] not in ",} \t\n\r"):
            try:
                end = _step(text, start)[1]
            except RecursionError:
                raise too_deep() from None
        yield Member(name, start, end)
        at = blanks(end)
        if text[at] == ",":
            at = blanks(at + 1)


_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))  # 255 is -1 as a signed byte


def check_nesting(value: bytes, above: int = 1) -> None:
    """Refuse a value that is nested too deep, or in too many containers. The value is valid JSON.

    above: the containers that the value stands in; for a member of the body, the body's own object.

    Raises:
        RequestError: 400.
    """
    if value[:1] not in (b"[", b"{") or value.count(b"[") + value.count(b"{") + above <= DEPTH_MAX:
        return
    # Brackets in strings do not count. First drop what could hide a string's end, then all but quotes and brackets;
    # what then stands between an odd quote and the next was a string. Two quotes in a row are an empty string, or the
    # end of one and the start of the next: either way nothing of structure is between them.
    bare = value.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    brackets = b"".join(bare.split(b'"')[::2])
    if len(brackets) > 2 * CONTAINERS_MAX:
        raise invalid_request(f"The request body has more than {CONTAINERS_MAX} objects and arrays in one member.")
    depth = max(accumulate(memoryview(brackets.translate(_STEPS)).cast("b")), default=0)
    if depth + above > DEPTH_MAX:
        raise too_deep()


def too_deep() -> RequestError:
    return invalid_request(f"The request body is nested deeper than {DEPTH_MAX} levels.")


def given_twice(name: str) -> RequestError:
    return invalid_request(f"`{echo(name)}` is given more than once. Send it once.", name)


def in_another_case(name: str, known: str) -> RequestError:
    return invalid_request(f"`{echo(name)}` must be written `{known}`.", name)
