"""What the two readers share to prove in C that a body is plain: text and functions, nothing to look for."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge.openai.ask import COUNT_MAX
from edge.openai.body import Members, check_nesting
from edge.openai.fields import GRAMMAR_BYTES_MAX, GRAMMARS, PLAIN

Count = Annotated[int, msgspec.Meta(ge=1, le=COUNT_MAX)]
Name = Annotated[str, msgspec.Meta(min_length=1)]
ABSENT = msgspec.Raw()  # msgspec takes Raw in no union, so absence is an empty one
Empty = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=0)]

_CONTAINER, _STRING, _NUMBER = b"{[", b'"', b"-0123456789"


class Typed(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Fits only what it lists: a type that takes unknown members would prove nothing.

    A member given twice is checked both times, so the one that a decoder would drop proves nothing wrong either.
    """


def plain_besides(members: Members, typed: frozenset[str]) -> bool:
    """Whether the members that are not `typed` are well known, and hold nothing to look for.

    Raises:
        RequestError: 400; nested too deep.
    """
    for name in members.values.keys() - typed:
        if name not in PLAIN:
            return False
        value = bytes(members.values[name])
        first = value[0]
        if first in _CONTAINER:
            if name in GRAMMARS and len(value) > GRAMMAR_BYTES_MAX:
                return False
            check_nesting(value)
        elif first in _NUMBER and b"e" in value.lower():  # may be out of range
            return False
    return True


def check_schema(parameters: msgspec.Raw, above: int) -> None:
    """A function's parameters may be any JSON; only their depth is bounded.

    Raises:
        RequestError: 400.
    """
    check_nesting(bytes(parameters), above)
