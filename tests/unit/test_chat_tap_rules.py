"""Each rule of the chat tap once, in plain words; and its limits."""

import json
import tracemalloc

import pytest

from edge.upstream.plain_events import frame_of
from edge.upstream.usage_tap import Carry, EventTooLarge, StreamTap, chat_tap, responses_tap
from pricing.token_usage import TokenUsage
from tests.harness.chat_events import DONE, ODD_USAGES, USAGE, chunk, drive, event, usage_chunk


def feed_all(carry: Carry, *events: bytes, n: int = 1) -> tuple[StreamTap, list[bytes]]:
    tap = chat_tap(carry, n)
    return tap, [tap.feed(item) for item in events]


def test_a_plain_event_is_passed_on_as_the_object_that_it_is() -> None:
    tap = chat_tap(Carry.CARRY)
    tap.feed(b": hello\n\n")
    for item in (
        event(chunk("a", usage=None)),
        event(chunk("b", usage=None)),
        event(chunk('"c"')),
        event(chunk("d")) * 3,
        event(chunk("e")).replace(b"\n", b"\r\n"),
        b"data: " + json.dumps(chunk("f", usage=None)).encode() + b"\n\n",
        event(chunk("g", usage={"prompt_tokens": 1, "completion_tokens": 1})),
    ):
        assert tap.feed(item) is item
    assert tap.delivered_events == 9


@pytest.mark.parametrize("begun", [b"id: 1\n", b"event: chunk\n", b"data: {}\n", b": working on ", b"event: x\r"])
def test_a_read_that_begins_inside_an_event_is_not_taken_for_whole_events(begun: bytes) -> None:
    for tap, plain in (
        (chat_tap(Carry.CARRY), event(chunk("a"))),
        (responses_tap(), b'event: response.output_text.delta\ndata: {"delta":"a"}\n\n'),
    ):
        out = [tap.feed(data) for data in (plain, plain, begun, plain, plain)]
        assert b"".join(out) == plain * 2 + begun + plain * 2
        assert out[2] == b""


def test_text_with_a_quote_or_a_backslash_does_not_hide_what_follows_it() -> None:
    head = event(chunk("a", finish=None))
    for text in ('x","finish_reason":"stop', "x\\", '"', '\\"', "\\\\"):
        tap, out = feed_all(Carry.CARRY, head, head, event(chunk(text)), event(chunk(text, "stop")))
        assert out[2:] == [event(chunk(text)), b""]
        assert tap.finished


def test_an_event_like_the_last_one_but_for_a_finish_of_the_same_length_is_noticed() -> None:
    for plain in (
        b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"a"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n',
    ):
        tap, out = feed_all(Carry.CARRY, plain, plain, plain, plain.replace(b"null", b'"ok"'))
        assert out == [plain, plain, plain, b""]
        assert tap.finished


def test_the_frame_of_an_event_is_what_surrounds_its_text() -> None:
    assert frame_of(b'data: {"delta":{"content":"x"},"a":"b"}\n\n') == (
        b'data: {"delta":{"content":"',
        b'"},"a":"b"}\n\n',
    )
    for nothing in (b'data: {"content":"say \\"hi"}\n\n', b'data: {"content":null}\n\n', b'data: {"content":"'):
        assert frame_of(nothing) is None


def test_one_key_that_says_something_among_others_that_say_null_is_noticed() -> None:
    choices: list[dict[str, object]] = [
        {"index": 0, "finish_reason": None},
        {"index": 1, "finish_reason": "stop", "usage": USAGE},
    ]
    for first in ({"index": 0, "finish_reason": None}, {"index": 0, "finish_reason": None, "usage": None}):
        tap, _ = feed_all(Carry.CARRY, event({"choices": [first, choices[1]], "usage": None}))
        assert (tap.finished, tap.usage) == (True, TokenUsage(11, 7, 3))
    tap, _ = feed_all(Carry.CARRY, event({"choices": [choices[0], {"index": 1, "finish_reason": "stop"}]}))
    assert tap.finished
    tap, _ = feed_all(Carry.CARRY, event({"choices": [{**choices[0], "usage": USAGE}], "usage": None}))
    assert tap.usage == TokenUsage(11, 7, 3)


def test_an_opening_event_without_choices_passes_whatever_its_usage_is_named() -> None:
    for members in (b"", b',"usage":null', b',"usage":null,"error":null'):
        opening = b'data: {"choices":[]' + members + b"}\n\n"
        for carry in Carry:
            assert feed_all(carry, opening)[1] == [opening]


def test_events_after_the_finish_are_delayed_by_one_in_order_and_comments_pass_ahead() -> None:
    first, second = event(chunk(finish="stop")), event(chunk("late", index=1))
    ping = event({"type": "ping"})
    _, out = feed_all(
        Carry.CARRY, b": a\n\n", first, b": b\n\n", ping, second, event(chunk(finish="stop", index=1)), n=2
    )
    assert out == [b": a\n\n", b"", b": b\n\n", b"", first + ping, second]


def test_usage_is_carried_on_the_last_event_with_choices_even_if_that_comes_after_the_usage() -> None:
    tap, out = feed_all(Carry.CARRY, event(chunk(finish="stop")), event(usage_chunk()), event(chunk("after")), DONE)
    assert out == [b"", b"", event(chunk(finish="stop")), b""]
    assert tap.ending() == event(chunk("after", usage=USAGE)) + DONE


def test_usage_is_carried_on_the_held_event_even_if_one_without_choices_waits_behind_it() -> None:
    ping = event({"type": "ping", "choices": None})
    tap, out = feed_all(Carry.CARRY, event(chunk(finish="stop")), ping, event(usage_chunk()), ping, DONE)
    assert out == [b""] * 5
    assert tap.ending() == event(chunk(finish="stop", usage=USAGE)) + ping * 2 + DONE
    assert tap.delivered_events == 4


def test_a_null_is_replaced_where_it_stands_and_other_members_follow() -> None:
    held = b'data: {"usage" : null , "choices":[{"finish_reason":"stop"}] }\n\n'
    withheld = b'data: {"choices":[],"usage":{"prompt_tokens":1,\ndata:"completion_tokens":2},"timings":1e-7}\n\n'
    tap, _ = feed_all(Carry.CARRY, held, withheld, DONE)
    carried = b'{"prompt_tokens":1, "completion_tokens":2}'
    assert tap.ending() == held.replace(b"null", carried).replace(b"}\n\n", b',"timings":1e-7}\n\n') + DONE


def test_an_event_that_already_has_usage_is_left_alone() -> None:
    held = event(chunk(finish="stop", usage={"prompt_tokens": 1, "completion_tokens": 1}))
    tap, _ = feed_all(Carry.CARRY, held, event(usage_chunk(timings=1)), DONE)
    assert tap.ending() == held + DONE
    assert tap.usage == TokenUsage(11, 7, 3)


def test_usage_asked_for_passes_unchanged_and_usage_declined_is_withheld() -> None:
    stream = [event(chunk("a")), event(chunk(finish="stop")), event(usage_chunk()), event(usage_chunk(None))]
    assert feed_all(Carry.UNCHANGED, *stream)[1] == stream
    tap, out = feed_all(Carry.WITHHOLD, *stream)
    assert out == [*stream[:2], b"", b""]
    assert tap.usage == TokenUsage(11, 7, 3)


def test_a_trailing_chunk_without_choices_or_usage_is_not_our_doing_when_usage_was_declined() -> None:
    trailing = event({"choices": [], "citations": [1]})
    assert feed_all(Carry.WITHHOLD, event(chunk(finish="stop")), trailing)[1][1] == trailing
    tap, out = feed_all(Carry.CARRY, event(chunk(finish="stop")), trailing, DONE)
    assert out == [b"", b"", b""]
    assert tap.ending() == event(chunk(finish="stop", citations=[1])) + DONE


def test_an_answer_whose_upstream_dies_after_the_finish_is_whole_and_released() -> None:
    tap, _ = feed_all(Carry.CARRY, event(chunk("a")), event(chunk(finish="stop")), event(usage_chunk()), b'data: {"cho')
    assert tap.release() == event(chunk(finish="stop", usage=USAGE))
    assert (tap.finished, tap.ended) == (True, False)
    assert tap.release() == b""


def test_an_answer_is_not_whole_until_every_choice_has_finished() -> None:
    tap, _ = feed_all(Carry.CARRY, event(chunk(finish="stop")), n=2)
    assert not tap.finished
    assert tap.release() == event(chunk(finish="stop"))


@pytest.mark.parametrize("torn", [b"", b"\n", b"\r\n", b"\r"])
def test_an_end_that_lacks_its_blank_line_is_an_end(torn: bytes) -> None:
    tap, _ = feed_all(Carry.CARRY, event(chunk(finish="stop")), event(usage_chunk()), b"data: [DONE]" + torn)
    assert tap.release() == b""
    assert tap.ended
    assert tap.ending().startswith(event(chunk(finish="stop", usage=USAGE)) + b"data: [DONE]" + torn)


def test_a_torn_event_that_is_no_whole_object_is_dropped() -> None:
    for torn in (event(chunk("x"))[:-4], b"data: [DON", b"data: 5", b"event: x", b": comm"):
        tap, out = feed_all(Carry.CARRY, event(chunk("a")), torn)
        assert (out, tap.release(), tap.ended) == ([event(chunk("a")), b""], b"", False)


def test_an_error_passes_at_once_behind_what_was_held() -> None:
    error = b'event: error\ndata: {"error":{"message":"boom"},"choices":[{"index":0,"finish_reason":"error"}]}\n\n'
    tap, out = feed_all(Carry.CARRY, event(chunk(finish="stop", index=1)), error, n=2)
    assert out == [b"", event(chunk(finish="stop", index=1)) + error]
    assert (tap.error_seen, tap.finished) == (True, False)


def test_what_follows_the_end_is_kept_with_it_and_a_second_end_is_unmetered() -> None:
    tap, out = feed_all(Carry.CARRY, event(chunk("a")) + DONE + b": bye\n\ndata: {")
    assert out == [event(chunk("a"))]
    assert not tap.unmetered
    assert tap.ending() == DONE + b": bye\n\ndata: {"
    tap, _ = feed_all(Carry.CARRY, DONE + DONE)
    assert tap.unmetered


@pytest.mark.parametrize(
    "data", [b"[1]", b'"x"', b"<html>", b'{"usage": {', b'{"error": ' + b"[" * 9999, b'{"usage":1}x']
)
def test_data_that_is_no_object_is_unmetered_and_passes(data: bytes) -> None:
    tap, out = feed_all(Carry.CARRY, b"data: " + data + b"\n\n")
    assert out == [b"data: " + data + b"\n\n"]
    assert tap.unmetered


UNREADABLE = [
    *ODD_USAGES,
    {**USAGE, "prompt_tokens_details": {"cached_tokens": 0.5}},
    {**USAGE, "prompt_tokens": 2**63},
]


@pytest.mark.parametrize("usage", UNREADABLE)
def test_usage_that_cannot_be_read_is_unmetered_until_a_later_one_can(usage: object) -> None:
    tap, _ = feed_all(Carry.CARRY, event(chunk("a", usage={"prompt_tokens": 1, "completion_tokens": 1})))
    tap.feed(event(chunk("b", "stop", usage=usage)))
    assert (tap.unmetered, tap.usage, tap.finished) == (True, TokenUsage(1, 1), True)
    tap.feed(event(usage_chunk()))
    assert (tap.unmetered, tap.usage) == (False, TokenUsage(11, 7, 3))


def test_negative_and_zero_counts_are_read_as_they_are() -> None:
    tap, _ = feed_all(Carry.CARRY, event(usage_chunk({"prompt_tokens": -5, "completion_tokens": 0})))
    assert (tap.usage, tap.unmetered) == (TokenUsage(-5, 0), False)


def test_usages_of_several_choices_share_their_prompt() -> None:
    choices = [chunk(finish="stop", index=index) for index in (0, 1)]
    for index, item in enumerate(choices):
        item["choices"][0]["usage"] = {"prompt_tokens": 9, "completion_tokens": 4 + index}
    tap, _ = feed_all(Carry.CARRY, event(choices[0]), event(choices[1]), n=2)
    assert tap.usage == TokenUsage(9, 9)


def test_a_member_of_an_odd_type_spoils_only_itself() -> None:
    odd = {"choices": [5, {"index": 0, "finish_reason": "stop", "usage": "x"}], "usage": USAGE, "error": 0, "object": 7}
    tap, _ = feed_all(Carry.CARRY, event(odd))
    assert (tap.usage, tap.finished, tap.error_seen, tap.unmetered) == (TokenUsage(11, 7, 3), True, False, False)


# -- limits --


def test_a_large_event_costs_its_size_once_or_twice_and_passes() -> None:
    large = event(chunk("y" * (4 << 20), "stop"))
    chunks = [large[at : at + 65536] for at in range(0, len(large), 65536)]
    tracemalloc.start()
    try:
        tap = chat_tap(Carry.CARRY)
        for data in chunks:
            assert tap.feed(data) == b""
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(large)
    tap.feed(event(usage_chunk()) + DONE)
    assert len(tap.ending()) > len(large)


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_an_event_over_the_limit_raises(size: int) -> None:
    for stream in (event(chunk("a")) * 3 + event(chunk("x" * 1000)), b":" + b"x" * 2000):
        for tap in (chat_tap(Carry.CARRY, max_event_bytes=1000), responses_tap(max_event_bytes=1000)):
            with pytest.raises(EventTooLarge):
                drive(tap, [stream[at : at + size] for at in range(0, len(stream), size)])


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (event(chunk(finish="stop")), [event({"type": "ping"})] * 100),
        (event(chunk(finish="stop")), [event(usage_chunk(**{f"k{at}": "x" * 50})) for at in range(100)]),
        (DONE, [b": more and more and more\n\n"] * 100),
    ],
)
def test_what_is_kept_back_is_bounded(first: bytes, then: list[bytes]) -> None:
    tap = chat_tap(Carry.CARRY, max_event_bytes=1000)
    tap.feed(first)
    with pytest.raises(EventTooLarge):
        drive(tap, then)
