"""Reading any valid body exactly, whatever its spelling: the path that judges what the plain one could not prove."""

from __future__ import annotations

import msgspec

from edge.openai.ask import CHAT, CONTINUOUS_USAGE, COUNT_MAX, INCLUDE_USAGE, RESPONSES, Ask
from edge.openai.body import Member, Members, check_nesting, given_twice, in_another_case, scan
from edge.openai.content import Search, parse
from edge.openai.errors import RequestError, invalid_request
from edge.openai.fields import (
    CONVERSATION,
    DECIDING,
    GRAMMAR_BYTES_MAX,
    GRAMMARS,
    OTHER_ANSWER_COUNTS,
    OTHER_OUTPUT_LIMITS,
    OUTPUT_LIMITS,
    REFUSED_FIELDS,
    REFUSED_PREFIXES,
)

_NULL = b"null"
_BOOLEANS = {b"true": True, b"false": False, _NULL: None}
_string = msgspec.json.Decoder(str).decode


def include_usage_from(value: msgspec.Raw | bytes) -> tuple[bool | None, bool]:
    """What a client's `stream_options` says of usage: (include_usage, whether it sets continuous_usage_stats).

    Raises:
        RequestError: 400; not an object, or a member of it that decides is given twice or has a wrong type.
    """
    value = bytes(value)
    if value == b'{"include_usage":true}' or value == b'{"include_usage": true}':
        return True, False
    if value == _NULL:
        return None, False
    if not value.startswith(b"{"):
        raise invalid_request("`stream_options` must be an object.", "stream_options")
    check_nesting(value)
    options = scan(value)
    said: dict[str, bool | None] = {}
    for member in options:
        known = member.name.casefold()
        if known not in (INCLUDE_USAGE, CONTINUOUS_USAGE):
            continue
        if known != member.name:
            raise in_another_case(f"stream_options.{member.name}", f"stream_options.{known}")
        if known in said:
            raise given_twice(f"stream_options.{known}")
        said[known] = _boolean(options.value(member), f"stream_options.{known}")
    return said.get(INCLUDE_USAGE), bool(said.get(CONTINUOUS_USAGE))


def read_exactly(resource: str, members: Members) -> Ask:
    """Read any valid body, whatever its spelling, or say what is wrong with it.

    Raises:
        RequestError: 400, naming the field.
    """
    given = _given(members)
    model = _model(given.get("model", _NULL))
    search = Search()
    include_usage: bool | None = None
    n = 1
    limits: list[int] = []
    own_limit = False
    bounded = True
    for name, value in given.items():
        if value == _NULL:
            continue
        if name in OUTPUT_LIMITS:
            limits.append(_count(value, name))
            own_limit = own_limit or (name == "max_output_tokens") == (resource == RESPONSES)
        elif name in OTHER_OUTPUT_LIMITS:
            bounded = value.isdigit() and value != b"0" and bounded  # others, and numbers below 1, mean no limit at all
            limits += [min(int(value[:12]), COUNT_MAX)] if value.isdigit() else []
        elif name == "n":
            n = max(n, _count(value, name))
            if resource == RESPONSES:
                search.found("n", name)
        elif name in OTHER_ANSWER_COUNTS and value.isdigit():
            n = max(n, min(int(value[:12]), COUNT_MAX))
        elif name == "stream_options":
            include_usage, continuous = include_usage_from(value)
            if continuous:
                search.found(CONTINUOUS_USAGE, f"stream_options.{CONTINUOUS_USAGE}")
        elif name in GRAMMARS and len(value) > GRAMMAR_BYTES_MAX:
            search.found("grammar", name)
        elif name in CONVERSATION:
            search.conversation(name, parse(value))
        elif name == "tools":
            if not value.startswith(b"["):
                raise invalid_request("`tools` must be an array.", name)
            search.tools(name, parse(value))
        elif name == "tool_choice":
            search.tool_choice(parse(value))
        elif name == "modalities":
            search.modalities(parse(value))
        elif name == "chat_template_kwargs":
            search.template_arguments(parse(value))
    for member in members:
        row = refused_name(member.name)
        if row is not None and _matters(row, members.value(member)):
            search.opaque = True
            search.found(row, member.name)
    return Ask(
        resource=resource,
        body=members.body,
        members=members,
        model=model,
        stream=bool(_boolean(given.get("stream", _NULL), "stream")),
        include_usage=include_usage if resource == CHAT else None,
        n=n,
        max_output_tokens=max(limits) if own_limit and bounded else None,
        opaque=search.opaque,
        images=search.images,
        findings=tuple(search.findings.values()),
    )


def refused_name(name: str) -> str | None:
    """The row of REFUSED_FIELDS that speaks for a member's name; an upstream may be lax about its case."""
    name = name.casefold()
    if name in REFUSED_FIELDS:
        return name
    for prefix, row in REFUSED_PREFIXES.items():
        if name.startswith(prefix):
            return row
    return None


def _matters(name: str, value: bytes) -> bool:
    return value != _NULL and value not in REFUSED_FIELDS[name].harmless


def _given(members: Members) -> dict[str, bytes]:
    """Every member's value by name, with the names that decide checked for a second spelling."""
    given: dict[str, bytes] = {}
    seen: set[str] = set()
    for member in members:
        value = members.value(member)
        check_nesting(value)
        _check_finite(member, value)
        known = member.name.casefold()
        if known in DECIDING and known != member.name:
            raise in_another_case(member.name, known)
        if known in DECIDING or known in GRAMMARS or refused_name(known) is not None:
            if known in seen:
                raise given_twice(member.name)
            seen.add(known)
        given[member.name] = value
    return given


def _check_finite(member: Member, value: bytes) -> None:
    """1e400 is a number in JSON's grammar and infinity in most parsers."""
    if value[0] in b"-0123456789" and b"e" in value.lower() and abs(float(value)) == float("inf"):
        raise invalid_request(f"`{member.name}` is out of range.", member.name)


def _model(value: bytes) -> str:
    if value == _NULL:
        raise invalid_request("`model` is missing. GET /v1/models lists the models.", "model")
    if not value.startswith(b'"') or value == b'""':
        raise invalid_request("`model` must be a non-empty string.", "model")
    return _string(value)


def _boolean(value: bytes, name: str) -> bool | None:
    if value not in _BOOLEANS:
        raise _wrong(name, "true or false")
    return _BOOLEANS[value]


def _count(value: bytes, name: str) -> int:
    # int() refuses more than 4,300 digits; a dozen decide.
    if not value.isdigit() or not 1 <= int(value[:12]) <= COUNT_MAX:
        raise _wrong(name, f"an integer from 1 to {COUNT_MAX}")
    return int(value)


def _wrong(name: str, expected: str) -> RequestError:
    return invalid_request(f"`{name}` must be {expected}.", name)
