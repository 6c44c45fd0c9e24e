"""The chat tap against the rules read naively: generated streams and scenarios, each cut everywhere."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.upstream.usage_tap import Carry, StreamTap, chat_tap
from pricing.token_usage import TokenUsage
from tests.harness.chat_events import DONE, ODD_USAGES, USAGE, chunk, drive, event, one_by_one, outcome, usage_chunk
from tests.harness.naive_stream import Verdict, check_carried, fields_of, judge_chat, pieces_of

TEXTS = st.sampled_from(
    [" token", "", '"usage":{"prompt_tokens":1}', "data: [DONE]", "\n\ndata: [DONE]\n\n", "error", "🙂é漢", "\\", '"']
)
FINISHES = st.sampled_from([None, None, None, "", "stop", "tool_calls"])
EXTRAS: list[dict[str, object]] = [{}, {"timings": {"predicted_ms": 1.25}}, {"model": "m", "x": "}\n{"}]
COUNTS = st.integers(-3, 9)
USAGES = st.one_of(
    st.just(USAGE),
    st.builds(lambda a, b: {"prompt_tokens": a, "completion_tokens": b, "prompt_tokens_details": None}, COUNTS, COUNTS),
    st.builds(lambda a, b: {"prompt_tokens": a, "total_tokens": b}, COUNTS, COUNTS),
    st.sampled_from(ODD_USAGES),
)


@st.composite
def values(draw: st.DrawFn) -> object:
    kind = draw(st.integers(0, 11))
    if kind <= 4:
        value = chunk(draw(TEXTS), draw(FINISHES), draw(st.integers(0, 1)))
        if draw(st.integers(0, 3)) == 0:
            value["usage"] = draw(st.one_of(st.none(), st.none(), USAGES))
        if draw(st.integers(0, 9)) == 0:
            value["choices"][0]["usage"] = USAGE
        return value
    if kind <= 6:
        extra = draw(st.sampled_from(EXTRAS))
        value = usage_chunk(draw(st.one_of(st.none(), USAGES)), **extra)
        if draw(st.integers(0, 5)) == 0:
            del value["usage"]
        return value
    return draw(
        st.sampled_from(
            [
                {"error": {"message": "overloaded"}},
                {"object": "error", "message": "usage"},
                {"error": None, **chunk("x")},
                {"type": "ping"},
                {"choices": None},
                {"choices": [{"index": 0, "finish_reason": "stop", "usage": 4}], "usage": None},
                chunk('tool "quoted"'),
            ]
        )
    )


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    ends = draw(st.sampled_from([[b"\n"], [b"\n"], [b"\r\n"], [b"\r"], [b"\n", b"\r\n", b"\r"]]))
    end = st.sampled_from(ends)
    stream = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))
    for _ in range(draw(st.integers(1, 9))):
        kind = draw(st.integers(0, 14))
        if kind == 0:
            stream += draw(st.sampled_from([b": ping", b":", b"data:", b"data: 5", b"event: x", b"id: 1", b""]))
            stream += draw(end) + (draw(end) if draw(st.booleans()) else b"")
            continue
        separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
        indent = draw(st.sampled_from([None, None, None, 1]))
        text = json.dumps(draw(values()), separators=separators, indent=indent, ensure_ascii=draw(st.booleans()))
        lines = [draw(st.sampled_from([b"data: ", b"data:"])) + line.encode() for line in text.split("\n")]
        if draw(st.integers(0, 4)) == 0:
            other = draw(st.sampled_from([b"event: error", b"id: 7", b": comment", b"retry: 5", b"event: chunk"]))
            lines.insert(draw(st.integers(0, len(lines))), other)
        stream += b"".join(line + draw(end) for line in lines)
        blank = draw(end)  # CR and LF are one line end, and two objects in one event are none
        stream += b"\r\n" if stream.endswith(b"\r") and blank == b"\n" else blank
    for _ in range(draw(st.integers(0, 2))):
        stream += b"data: [DONE]" + draw(end) + draw(end) + draw(st.sampled_from([b"", event(chunk("late"))]))
    torn = draw(st.integers(0, 3)) == 0
    return stream[: draw(st.integers(0, len(stream)))] if torn else stream


def compare(verdict: Verdict, tap: StreamTap, fed: bytes, late: bytes, n: int) -> None:
    assert fed == b"".join(verdict.fed)
    for at, piece in enumerate(verdict.late):
        if isinstance(piece, bytes):
            assert late.startswith(piece)
            late = late[len(piece) :]
        else:
            size = len(late) - sum(len(item) for item in verdict.late[at + 1 :] if isinstance(item, bytes))
            if piece.members:
                check_carried(piece, late[:size])
            else:
                assert late[:size] == piece.event
            late = late[size:]
    assert late == b""
    assert tap.usage == (TokenUsage(**verdict.usage) if verdict.usage else None)
    assert tap.ended == verdict.ended
    assert tap.finished == (len(verdict.finished) >= n)
    assert tap.unmetered == verdict.unmetered
    assert tap.error_seen == verdict.error_seen
    assert tap.delivered_events == verdict.events


@settings(max_examples=200, deadline=None)
@given(stream=streams(), carry=st.sampled_from(Carry), n=st.integers(1, 2), data=st.data())
def test_the_chat_tap_does_what_the_rules_say_at_any_cut(
    stream: bytes, carry: Carry, n: int, data: st.DataObject
) -> None:
    verdict = judge_chat(stream, carry.value)
    pieces, _ = pieces_of(stream)
    by_event = [b"".join(line.text + line.end for line in piece) for piece in pieces]
    by_event.append(stream[sum(map(len, by_event)) :])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    at_random = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    for chunks in ([stream], by_event, one_by_one(stream), at_random):
        tap = chat_tap(carry, n)
        fed, late = drive(tap, chunks)
        compare(verdict, tap, fed, late, n)
        assert tap.delivered_bytes == len(fed) + len(late)


# -- scenarios, cut everywhere --

CONTENT = event(chunk('The "usage":{ of data: [DONE] 漢🙂')) + event(chunk("b"))
SCENARIOS = {
    "last chunk with empty choices": CONTENT
    + event(chunk(finish="stop"))
    + event(usage_chunk(timings={"ms": 1e-7}))
    + DONE,
    "usage on the last content chunk": CONTENT + event(chunk("c", "stop", usage=USAGE)) + DONE,
    "usage null everywhere": event(chunk("a", usage=None)) * 3
    + event(chunk(finish="stop", usage=None))
    + event(usage_chunk())
    + event(usage_chunk(None))
    + DONE,
    "cumulative usage in every chunk": event(chunk("a", usage={**USAGE, "completion_tokens": 1}))
    + event(chunk("b", "stop", usage=USAGE))
    + event(usage_chunk())
    + DONE,
    "usage in the choices": CONTENT
    + event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]})
    + DONE,
    "two choices": b"".join(event(chunk("x", index=i)) for i in (0, 1, 0, 1))
    + event(chunk(finish="stop"))
    + event(chunk("y", index=1))
    + b": wait\n\n"
    + event(chunk(finish="length", index=1))
    + event(usage_chunk())
    + DONE,
    "the opening event without choices": event({"id": "", "choices": [], "prompt_filter_results": []}) + CONTENT + DONE,
    "tool calls": event(chunk(None) | {"x": {"arguments": '{"usage":{'}}) + event(chunk(None, "tool_calls")) + DONE,
    "comments and CRLF": b": hi\r\n\r\n"
    + (CONTENT + event(chunk(finish="stop")) + b": pong\n\n" + event(usage_chunk()) + DONE).replace(b"\n", b"\r\n"),
    "CR": (CONTENT + event(chunk(finish="stop")) + event(usage_chunk()) + DONE).replace(b"\n", b"\r"),
    "several lines": b'id: 1\ndata: {\ndata:   "choices": [{"finish_reason": "stop", "index": 0}],\ndata: "usage" :'
    b' null\ndata:}\n\nevent: u\ndata: {"choices": [],\ndata:  "usage": {"prompt_tokens": 11, \n'
    b'data: "completion_tokens":7}}\n\n' + DONE,
    "an error after the finish": event(chunk(finish="stop")) + event({"error": {"message": "boom"}}),
    "cut after the finish": CONTENT + event(chunk(finish="stop")) + event(usage_chunk()) + b'data: {"choi',
    "two ends": CONTENT + DONE + b": tail\n\n" + DONE + b"data: torn",
    "no blank line at the end": CONTENT + event(chunk(finish="stop")) + event(usage_chunk()) + b"data: [DONE]",
    "BOM": b"\xef\xbb\xbf" + CONTENT + event(chunk(finish="stop")) + event(usage_chunk()) + DONE,
}


@pytest.mark.parametrize("carry", Carry)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_chat_scenario_is_the_same_at_every_cut(name: str, carry: Carry) -> None:
    stream = SCENARIOS[name]
    n = 2 if name == "two choices" else 1
    tap = chat_tap(carry, n)
    fed, late = drive(tap, [stream])
    compare(judge_chat(stream, carry.value), tap, fed, late, n)
    for chunks in [one_by_one(stream)] + [[stream[:at], stream[at:]] for at in range(len(stream))]:
        other = chat_tap(carry, n)
        assert drive(other, chunks) == (fed, late)
        assert outcome(other) == outcome(tap)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "the opening event without choices"])
def test_a_loop_over_first_choices_never_crashes_and_finds_the_usage(name: str) -> None:
    fed, late = drive(chat_tap(Carry.CARRY, 2 if name == "two choices" else 1), [SCENARIOS[name]])
    seen = []
    for piece in pieces_of(fed + late)[0]:
        data = fields_of(piece)[1]
        if data is None:
            continue
        if data.startswith("[DONE]"):
            break
        seen.append(json.loads(data))
        assert "error" in seen[-1] or seen[-1]["choices"][0]["index"] in (0, 1)
    reports_usage = b'"completion_tokens":7' in SCENARIOS[name] and name not in ("usage in the choices",)
    if reports_usage:
        assert seen[-1]["usage"]["completion_tokens"] == 7
        assert [item for item in seen if item.get("usage")][-1] is seen[-1]


@pytest.mark.parametrize("carry", Carry)
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_ending_never_leaves_before_it_is_asked_for(name: str, carry: Carry) -> None:
    tap = chat_tap(carry)
    for byte in one_by_one(SCENARIOS[name]):
        assert b"[DONE]\n\n" not in tap.feed(byte)
        if tap.ended:
            assert tap.feed(b"") == b""
            assert tap.release() == b""
    if tap.ended:
        assert b"data: [DONE]" in tap.ending()
        assert tap.ending() == b""
