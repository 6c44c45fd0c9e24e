"""Taking usage out of an event, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.upstream.sse import event_data
from edge.upstream.usage_splice import without_usage

USAGE = '{"prompt_tokens": 3, "note": "a \\" quote, and }"}'


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"id":"1","usage":%s}', '{"id":"1"}'),
        ('{"id":"1", "usage" : %s }', '{"id":"1" }'),
        ('{"id":"1","usage":%s,"z":[]}', '{"id":"1","z":[]}'),
        ('{"usage":%s,"z":[]}', '{"z":[]}'),
        ('{"usage":%s}', "{}"),
        ('{"choices":[{"usage":%s}]}', None),
        ('["usage",%s]', None),
        ('{"usage":1,"usage":%s}', None),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_one_member_goes_with_one_comma(text: str, left: str | None, line_end: str) -> None:
    event = f"data: {text % USAGE}{line_end * 2}".encode()
    wanted = event if left is None else f"data: {left}{line_end * 2}".encode()
    assert without_usage(event) == wanted


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(members=st.dictionaries(st.text(), values, max_size=4), place=st.integers(0, 4), indent=st.none() | st.just(1))
def test_what_is_left_is_the_object_without_usage(members: dict[str, object], place: int, indent: int | None) -> None:
    members.pop("usage", None)
    pairs = list(members.items())
    pairs.insert(min(place, len(pairs)), ("usage", {"prompt_tokens": 1}))
    lines = json.dumps(dict(pairs), indent=indent, ensure_ascii=False).split("\n")
    event = "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
    assert json.loads(event_data(without_usage(event)) or b"") == members
