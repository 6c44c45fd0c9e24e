"""The scan of a body's top level: what is refused as no JSON of ours, and that every place is exact."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.openai.body import CONTAINERS_MAX, DEPTH_MAX, check_nesting, scan
from edge.openai.chat import read_chat
from edge.openai.errors import RequestError


def complaint(body: bytes) -> str:
    """What is said of a body; nothing, if it is taken."""
    try:
        read_chat(body)
    except RequestError as error:
        return error.message
    return ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b'"text"',
        b"null",
        b"{",
        b'{"a":1',
        b'{"a":1} x',
        b'{"a":1}{"b":2}',
        b'{"a":1}\0',
        b'{"a":1,}',
        b"{a:1}",
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":1.}',
        b'{"a":.5}',
        b'{"a":+1}',
        b'{"a":NaN}',
        b'{"a":[Infinity]}',
        b'{"a":{"b":-Infinity}}',
        b'{"a":[1,]}',
        b'{"a":tru}',
        b'{"a":"\\x"}',
        b'{"a":["\\u12"]}',
        b'{"a":"\n"}',
        b'{"a":/*no*/1}',
        b'{"a":\xc2\xa01}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\xff"}',
        b'{"a":[{"b":"\xff"}]}',
        b'{"a":"\xc0\xaf"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"\xff":1}',
        b'{"a":"\\ud800"}',
        b'{"a":["\\udc00\\ud800"]}',
    ],
)
def test_what_is_not_a_json_object_in_utf8_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        scan(body)
    assert caught.value.status == 400
    assert caught.value.code == "invalid_request_error"


@pytest.mark.parametrize("depth", [DEPTH_MAX, DEPTH_MAX + 1, 500, 5_000, 1_000_000])
@pytest.mark.parametrize("opening", ["[", '{"k":'])
@pytest.mark.parametrize("where", ["messages", "unknown", "metadata", "tools", "response_format", "stream_options"])
def test_a_body_nests_at_most_so_deep_wherever_it_is(where: str, opening: str, depth: int) -> None:
    nest = opening * (depth - 1) + "0" + ("]" if opening == "[" else "}") * (depth - 1)
    if where == "tools":
        nest = "[" + nest[1:] if opening == "[" else f"[{nest[: -len('}')].removeprefix(opening)}]"
    if where == "stream_options":
        nest = '{"k":' + nest.removeprefix(opening)[:-1] + "}"
    messages = "" if where == "messages" else '"messages":[],'
    body = f'{{"model":"m",{messages}"{where}":{nest}}}'.encode()
    assert ("deeper" in complaint(body)) == (depth > DEPTH_MAX)


@pytest.mark.parametrize("above_limit", [False, True])
def test_the_parameters_of_a_plain_tool_count_from_the_top(above_limit: bool) -> None:
    depth = DEPTH_MAX - 4 + above_limit
    schema = '{"a":' * depth + "0" + "}" * depth
    body = (
        '{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":' + schema + "}}]}"
    ).encode()
    if above_limit:
        with pytest.raises(RequestError, match="deeper"):
            read_chat(body)
    else:
        assert read_chat(body).model == "m"


@pytest.mark.parametrize(
    "text", ["[" * 500, '\\"[' * 500, "\\\\", "\\\\\\\\", '\\\\\\"' + "{" * 500, "]" * 500, '"' * 7 + "[" * 300]
)
def test_brackets_in_strings_are_no_depth(text: str) -> None:
    deep = json.dumps([text, [text], {"[[" + text: [text, text]}] * 40).encode()
    check_nesting(deep)


@given(
    st.recursive(
        st.text(alphabet='[]{}"\\,:a\n', max_size=8) | st.integers(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='[]{}"\\', max_size=4), inner),
        max_leaves=12,
    ),
    st.integers(0, 70),
)
def test_depth_is_measured_as_a_parser_would(value: Any, above: int) -> None:
    def depth_of(inner: Any) -> int:
        if isinstance(inner, dict):
            return 1 + max(map(depth_of, inner.values()), default=0)
        if isinstance(inner, list):
            return 1 + max(map(depth_of, inner), default=0)
        return 0

    # Forty empty arrays keep the cheap bound from deciding.
    padded = [value, [[]] * 40]
    try:
        check_nesting(json.dumps(padded).encode(), above)
    except RequestError:
        assert above + depth_of(padded) > DEPTH_MAX
    else:
        assert above + depth_of(padded) <= DEPTH_MAX


def test_a_flood_of_empty_arrays_is_refused() -> None:
    flood = b"[" + b",".join([b"[]"] * (CONTAINERS_MAX + 1)) + b"]"
    with pytest.raises(RequestError, match="objects and arrays"):
        read_chat(b'{"model":"m","messages":' + flood + b"}")


blanks = st.text(alphabet=" \t\n\r", max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """A string literal of JSON, in any of its spellings."""
    pieces = []
    for character in text:
        way = draw(st.integers(0, 2))
        escaped = json.dumps(character)[1:-1]
        if way == 0:
            pieces.append(escaped)
        elif way == 1:
            pieces.append(json.dumps(character, ensure_ascii=False)[1:-1])
        else:
            units = character.encode("utf-16-be")
            pieces.append("".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)))
    return '"' + "".join(pieces) + '"'


@st.composite
def members(draw: st.DrawFn) -> list[tuple[str, str]]:
    name = st.sampled_from(["a", "b", "model", "ü", "\U0001f600", 'q"', "\\", ""]) | st.text(max_size=3)
    return [
        (draw(name), json.dumps(draw(values), ensure_ascii=draw(st.booleans()))) for _ in range(draw(st.integers(0, 5)))
    ]


@st.composite
def objects(draw: st.DrawFn) -> tuple[str, list[tuple[str, str]]]:
    """A JSON object as text, and its members as (name, text of the value) in order."""
    pairs = draw(members())
    style = draw(st.sampled_from(["compact", "spaced", "odd"]))
    if style == "odd":
        text = draw(blanks) + "{" + draw(blanks)
        for index, (name, value) in enumerate(pairs):
            text += "," + draw(blanks) if index else ""
            text += draw(spelled(name)) + draw(blanks) + ":" + draw(blanks) + value + draw(blanks)
        return text + "}" + draw(blanks), pairs
    comma, colon = (",", ":") if style == "compact" else (", ", ": ")
    ascii_only = draw(st.booleans())
    written = [json.dumps(name, ensure_ascii=ascii_only) + colon + value for name, value in pairs]
    return "{" + comma.join(written) + "}", pairs


@given(objects())
def test_every_member_is_found_where_it_stands(made: tuple[str, list[tuple[str, str]]]) -> None:
    text, pairs = made
    body = text.encode()
    found = scan(body)
    assert [(member.name, found.value(member).decode()) for member in found] == pairs
    names = [name for name, _ in pairs]
    if found.plain:
        assert len(set(names)) == len(names)
    for name, value in dict(pairs).items():
        member = found.find(name)
        assert member is not None
        assert found.value(member).decode() == value
    assert found.find("absent") is None


@pytest.mark.parametrize(
    "body",
    [
        # A second member exactly as long as the blanks of the spaced form would be.
        b'{"a":1,"b":22,"c":3,"b":2}',
        b'{"n":12,"n":1}',
        b'{"n":1,"n":1}',
        b'{"a":"x","a": "x"}',
        b'{"a":1, "b":2 ,"":0}',
        b'{"a\\u0062":1, "b": 2}',
    ],
)
def test_no_spelling_hides_a_second_member(body: bytes) -> None:
    pairs: list[tuple[str, Any]] = json.loads(body, object_pairs_hook=list)
    found = scan(body)
    assert [(member.name, json.loads(found.value(member))) for member in found] == pairs


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:\\0123456789eE.-truefalsn ', max_size=60).map(str.encode))
def test_no_bytes_crash_the_scan(body: bytes) -> None:
    with suppress(RequestError):
        list(scan(body))


def test_the_common_spellings_are_proven_plain() -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi, {there}: [é]"}], "stream": True}
    assert scan(json.dumps(asked, separators=(",", ":")).encode()).plain
    assert scan(json.dumps(asked).encode()).plain
    assert scan(json.dumps(asked, ensure_ascii=False).encode()).plain
    assert not scan(json.dumps(asked, indent=2).encode()).plain
