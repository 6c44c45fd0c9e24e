"""Reading what a request asks for, and the body that a deployment gets."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.openai import chat, responses
from edge.openai.ask import Ask
from edge.openai.chat import read_chat
from edge.openai.errors import RequestError
from edge.openai.responses import read_responses
from tests.unit.test_openai_body import blanks, spelled, values

PATHS = pytest.mark.parametrize("extra", [{}, {"min_tokens": 1, "unheard_of": 1}], ids=["plain", "exact"])


def chat_body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def responses_body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


def refusal_of(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read_chat(body)
    assert caught.value.status == 400
    assert caught.value.code == "invalid_request_error"
    return caught.value


@PATHS
def test_a_chat_body_is_read(extra: dict[str, Any]) -> None:
    body = chat_body(stream=True, n=2, max_tokens=7, temperature=0.5, **extra)
    ask = read_chat(body)
    assert (ask.resource, ask.model, ask.stream, ask.n, ask.max_output_tokens) == ("chat", "m", True, 2, 7)
    assert (ask.include_usage, ask.images, ask.opaque, ask.findings) == (None, 0, False, ())
    assert ask.text_bytes == len(body)


@PATHS
def test_a_responses_body_is_read(extra: dict[str, Any]) -> None:
    ask = read_responses(responses_body(stream=True, max_output_tokens=9, instructions="Be brief.", **extra))
    assert (ask.resource, ask.model, ask.stream, ask.n, ask.max_output_tokens) == ("responses", "m", True, 1, 9)
    assert (ask.include_usage, ask.opaque, ask.findings) == (None, False, ())


@PATHS
def test_what_is_null_is_absent(extra: dict[str, Any]) -> None:
    absent = dict.fromkeys(["stream", "n", "max_tokens", "max_completion_tokens", "stream_options", "tools", "audio"])
    ask = read_chat(chat_body(**absent, background=None, previous_response_id=None, **extra))
    assert (ask.stream, ask.n, ask.max_output_tokens, ask.include_usage, ask.findings) == (False, 1, None, None, ())


def test_common_requests_never_leave_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Ask:
        raise AssertionError("read exactly")

    monkeypatch.setattr(chat, "read_exactly", fail)
    monkeypatch.setattr(responses, "read_exactly", fail)
    function = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}, "strict": True}
    conversation = [
        {"role": "system", "content": "Be brief. \u4e16\u754c"},
        {"role": "user", "content": [{"type": "text", "text": '"image_url": https://example.com'}], "name": "x"},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "audio": None,
            "annotations": [],
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ]
    common = {
        "stream": True,
        "max_completion_tokens": 5,
        "temperature": 1,
        "seed": 3,
        "response_format": {"type": "text"},
    }
    for separators in [(",", ":"), (", ", ": ")]:
        for options in ({"include_usage": True}, {"include_usage": False}, {}):
            fields = {
                "model": "m",
                "messages": conversation,
                "tools": [{"type": "function", "function": function}],
                "tool_choice": "auto",
                "stream_options": options,
                **common,
            }
            ask = read_chat(json.dumps(fields, separators=separators).encode())
            assert ask.max_output_tokens == 5
        asked = {
            "model": "m",
            "input": [
                {"role": "user", "content": "hi"},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": "fc_1"},
                {"type": "function_call_output", "call_id": "c", "output": "42"},
            ],
            "instructions": "Be brief.",
            "tools": [{"type": "function", **function}],
            "reasoning": {"effort": "low"},
            "text": {"format": {"type": "text"}},
            "store": False,
            "stream": True,
        }
        assert read_responses(json.dumps(asked, separators=separators).encode()).stream


@pytest.mark.parametrize("body", [b"{}", b'{"messages":[]}', b'{"model":null}', b'{"model":null,"messages":[]}'])
def test_a_missing_model_is_named(body: bytes) -> None:
    error = refusal_of(body)
    assert error.param == "model"
    assert "missing" in error.message


@PATHS
@pytest.mark.parametrize("model", [1, True, "", [], {}, ["m"]])
def test_a_model_is_a_string_with_something_in_it(model: Any, extra: dict[str, Any]) -> None:
    assert refusal_of(chat_body(**{"model": model, **extra})).param == "model"


@PATHS
@pytest.mark.parametrize("stream", [1, 0, "true", "", [], {}, 1.0])
def test_stream_is_true_or_false(stream: Any, extra: dict[str, Any]) -> None:
    assert refusal_of(chat_body(stream=stream, **extra)).param == "stream"


@PATHS
@pytest.mark.parametrize("name", ["n", "max_tokens", "max_completion_tokens", "max_output_tokens"])
@pytest.mark.parametrize(
    "value",
    ["0", "-1", "-0", "1.0", "1e3", "1.5", "1e400", "1" + "0" * 30, "9" * 5_000, '"5"', "true", "[]", "{}", '""'],
)
def test_counts_are_integers_from_one(name: str, value: str, extra: dict[str, Any]) -> None:
    body = chat_body(**extra)[:-1] + f', "{name}": {value}}}'.encode()
    error = refusal_of(body)
    assert error.param == name
    assert len(error.message) < 200


def test_a_number_beyond_any_parser_is_refused_wherever_it_decides_nothing() -> None:
    for name in ("temperature", "top_k", "unheard_of", "seed"):
        assert refusal_of(chat_body()[:-1] + f', "{name}": 1e400}}'.encode()).param == name
    assert read_chat(chat_body()[:-1] + b', "temperature": 1e-7, "unheard_of": 1E5}').model == "m"


@PATHS
def test_the_largest_output_limit_counts(extra: dict[str, Any]) -> None:
    assert read_chat(chat_body(max_tokens=5, max_completion_tokens=50, **extra)).max_output_tokens == 50
    assert read_chat(chat_body(max_tokens=50, max_completion_tokens=5, **extra)).max_output_tokens == 50
    assert read_chat(chat_body(max_completion_tokens=5, **extra)).max_output_tokens == 5


def test_a_limit_that_the_endpoint_does_not_know_never_lowers_the_hold() -> None:
    assert read_chat(chat_body(max_output_tokens=1)).max_output_tokens is None
    assert read_chat(chat_body(max_output_tokens=9, max_tokens=5)).max_output_tokens == 9
    assert read_responses(responses_body(max_tokens=1, max_completion_tokens=1)).max_output_tokens is None
    assert read_responses(responses_body(max_tokens=9, max_output_tokens=5)).max_output_tokens == 9


@pytest.mark.parametrize(
    "doubled",
    [
        '"model":"a","model":"b"',
        '"model":"a","model":"a"',
        '"model":"a","mod\\u0065l":"b"',
        '"mod\\u0065l":"a","model":"b"',
        '"stream":true,"stream":false',
        '"stream":false,"str\\u0065am":true',
        '"stream_options":{},"stream_options":{"include_usage":true}',
        '"n":1,"n":100',
        '"max_tokens":1,"max_tokens":100000',
        '"max_tokens":1,"max_token\\u0073":100000',
        '"messages":[],"messages":[]',
        '"tools":[],"tools":[{"type":"web_search"}]',
        '"background":true,"background":false',
        '"response_format":null,"response_format":{}',
    ],
)
def test_a_field_that_decides_is_given_once(doubled: str) -> None:
    rest = "" if '"model"' in doubled else '"model":"m",'
    for body in (f"{{{rest}{doubled}}}", f"{{ {rest} {doubled} }}"):
        assert "more than once" in refusal_of(body.encode()).message


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Model", "model"),
        ("STREAM", "stream"),
        ("Max_Tokens", "max_tokens"),
        ("N", "n"),
        ("Stream_Options", "stream_options"),
        ("Messages", "messages"),
        ("\\u004dodel", "model"),
        ("\\u017ftream", "stream"),  # the long s, which Go's decoder takes for an s
        ("too\\u006cs".replace("l", "L"), "tools"),
    ],
)
def test_a_field_that_decides_is_in_its_own_case(name: str, known: str) -> None:
    rest = "" if known == "model" else '"model":"m",'
    error = refusal_of(f'{{{rest}"{name}":1}}'.encode())
    assert f"`{known}`" in error.message


def test_the_same_field_twice_is_fine_where_it_decides_nothing() -> None:
    body = b'{"model":"m","temperature":1,"temperature":2,"x":{},"x":[]}'
    assert read_chat(body).upstream_body("m", False) is body


@pytest.mark.parametrize("options", ["[]", "1", '"x"', "true", "false"])
def test_stream_options_are_an_object(options: str) -> None:
    error = refusal_of(f'{{"model":"m","messages":[],"stream":true,"stream_options":{options}}}'.encode())
    assert error.param == "stream_options"


@pytest.mark.parametrize(
    ("options", "include_usage"),
    [
        ('{"include_usage":true}', True),
        ('{"include_usage": true}', True),
        ('{ "include_usag\\u0065" : true }', True),
        ('{"include_usage":false}', False),
        ('{"include_obfuscation":false,"include_usage":false}', False),
        ('{"include_usage":null}', None),
        ("{}", None),
        ("null", None),
        ('{"include_obfuscation":true}', None),
    ],
)
@PATHS
def test_what_was_said_of_usage_is_kept_apart(options: str, include_usage: bool | None, extra: dict[str, Any]) -> None:
    ask = read_chat(chat_body(stream=True, **extra)[:-1] + f', "stream_options": {options}}}'.encode())
    assert ask.include_usage is include_usage


@pytest.mark.parametrize(
    "options",
    [
        '{"include_usage":1}',
        '{"include_usage":"true"}',
        '{"include_usage":true,"include_usage":false}',
        '{"include_usage":true,"include_usag\\u0065":false}',
        '{"Include_Usage":true}',
        '{"continuous_usage_stats":1}',
    ],
)
def test_inside_stream_options_the_same_rules_hold(options: str) -> None:
    error = refusal_of(f'{{"model":"m","messages":[],"stream":true,"stream_options":{options}}}'.encode())
    assert error.param is not None
    assert error.param.startswith("stream_options.")


# ---- the body for upstream ----


def test_nothing_to_change_gives_the_very_same_body() -> None:
    for body in (
        chat_body(stream=True, stream_options={"include_usage": True}),
        chat_body(),
        responses_body(stream=True),
    ):
        read = read_chat if b"messages" in body else read_responses
        assert read(body).upstream_body(None, True) is body
        assert read(body).upstream_body("m", True) is body


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"model":"m","stream":true}', b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'),
        (
            b'{"model":"m","stream":true \n} \n',
            b'{"model":"m","stream":true \n,"stream_options":{"include_usage":true}} \n',
        ),
        (
            b'{"stream_options":null,"model":"m","stream":true}',
            b'{"stream_options":{"include_usage":true},"model":"m","stream":true}',
        ),
        (
            b'{"model":"m","stream":true,"stream_options": { } }',
            b'{"model":"m","stream":true,"stream_options": {"include_usage":true } }',
        ),
        (
            b'{"model":"m","stream":true,"stream_options":{"x":1e-7}}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true,"x":1e-7}}',
        ),
        (
            b'{"model":"m","stream":true,"stream_options":{"x":1, "include_usage" : false}}',
            b'{"model":"m","stream":true,"stream_options":{"x":1, "include_usage" : true}}',
        ),
        (
            b'{"model":"m","stream":true,"stream_options":{"include_usag\\u0065":null}}',
            b'{"model":"m","stream":true,"stream_options":{"include_usag\\u0065":true}}',
        ),
    ],
)
def test_usage_is_asked_for_by_a_splice(before: bytes, after: bytes) -> None:
    assert read_chat(before).upstream_body(None, True) == after


def test_a_deployment_may_report_usage_in_every_chunk() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    assert json.loads(read_chat(body).upstream_body(None, True, True))["stream_options"] == {
        "include_usage": True,
        "continuous_usage_stats": True,
    }
    body = b'{"model":"m","stream":true}'
    assert json.loads(read_chat(body).upstream_body(None, True, True))["stream_options"] == {
        "include_usage": True,
        "continuous_usage_stats": True,
    }


def test_usage_is_never_asked_for_where_it_would_be_an_error() -> None:
    plain = b'{"model":"m","messages":[]}'
    assert read_chat(plain).upstream_body(None, True, True) is plain
    body = responses_body(stream=True)
    assert read_responses(body).upstream_body(None, True, True) is body


@pytest.mark.parametrize("name", ['weights/"x"\\y', "モデル", "m2", ""])
def test_the_deployments_own_name_takes_the_place_of_the_models(name: str) -> None:
    body = b'{ "temperature":1e-7, "mod\\u0065l" :\t"m\\u0031", "x":"\\ud83d\\ude00","model2":"m1" }'
    sent = read_chat(body).upstream_body(name, True)
    assert sent == body.replace(b'"m\\u0031"', json.dumps(name, ensure_ascii=False).encode())


OPTIONS = st.none() | st.fixed_dictionaries(
    {}, optional={"include_usage": st.none() | st.booleans(), "x": values, "é": values}
)


@st.composite
def requests(draw: st.DrawFn) -> str:
    """A chat body in odd whitespace, with escapes, and with members that decide nothing given more than once."""
    pairs: list[tuple[str, Any]] = [("model", draw(st.text(min_size=1, max_size=4))), ("stream", draw(st.booleans()))]
    if draw(st.booleans()):
        pairs.append(("stream_options", draw(OPTIONS)))
    if draw(st.booleans()):
        pairs.append(("messages", [{"role": "user", "content": draw(st.text(max_size=5))}]))
    other = st.sampled_from(["x", "y", "ü", "\U0001f600", 'a"b', "temperature", "modelé", "model "])
    pairs += [(draw(other), draw(values)) for _ in range(draw(st.integers(0, 4)))]
    pairs = draw(st.permutations(pairs))
    if draw(st.booleans()):
        comma, colon = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
        return "{" + comma.join(json.dumps(name) + colon + json.dumps(value) for name, value in pairs) + "}"
    pieces = [
        draw(blanks)
        + draw(spelled(name))
        + draw(blanks)
        + ":"
        + draw(blanks)
        + json.dumps(value, indent=draw(st.none() | st.just(1)))
        for name, value in pairs
    ]
    return draw(blanks) + "{" + ",".join(pieces) + draw(blanks) + "}" + draw(blanks)


def comparable(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Inside stream_options the order of members says nothing."""
    return [(name, dict(value) if name == "stream_options" and value is not None else value) for name, value in pairs]


@given(requests(), st.none() | st.text(max_size=5), st.booleans(), st.booleans())
def test_a_spliced_body_differs_only_where_it_should(
    text: str, model: str | None, include_usage: bool, continuous: bool
) -> None:
    body = text.encode()
    ask = read_chat(body)
    sent = ask.upstream_body(model, include_usage, continuous)
    before: list[tuple[str, Any]] = json.loads(body, object_pairs_hook=list)
    after: list[tuple[str, Any]] = json.loads(sent, object_pairs_hook=list)
    wanted = {"include_usage": include_usage, "continuous_usage_stats": continuous} if ask.stream else {}
    added = dict.fromkeys((name for name, on in wanted.items() if on), True)
    expected: list[tuple[str, Any]] = []
    for name, value in before:
        if name == "model" and model is not None:
            expected.append((name, model))
        elif name == "stream_options" and added:
            expected.append((name, [*{**dict(value or []), **added}.items()]))
        else:
            expected.append((name, value))
    if added and "stream_options" not in dict(before):
        expected.append(("stream_options", [*added.items()]))
    assert comparable(after) == comparable(expected)
    if not added and (model is None or model == ask.model):
        assert sent is body
