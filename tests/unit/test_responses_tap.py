"""The responses tap: byte for byte, the terminal event last, and its usage read; cut everywhere."""

import json

import pytest

from edge.upstream.usage_tap import responses_tap
from pricing.token_usage import TokenUsage
from tests.harness.chat_events import drive, one_by_one, outcome

USAGE = {"input_tokens": 11, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 3}}
DONE = b"data: [DONE]\n\n"


def event(kind: str, number: int, **members: object) -> bytes:
    value = {"type": kind, "sequence_number": number, **members}
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), json.dumps(value, separators=(",", ":")).encode())


def delta(number: int, text: str = " token") -> bytes:
    return event("response.output_text.delta", number, delta=text)


def terminal(kind: str = "completed", number: int = 3, usage: object = USAGE) -> bytes:
    return event(f"response.{kind}", number, response={"status": kind, "usage": usage})


CREATED = event("response.created", 0, response={"status": "in_progress", "error": None, "usage": None})
TEXT = CREATED + delta(1) + delta(2, 'type":"response.completed and data: [DONE] and error')
SCENARIOS = {
    "completed": TEXT + terminal(),
    "incomplete": TEXT + terminal("incomplete"),
    "failed": TEXT + terminal("failed", usage=None),
    "DONE after the end": TEXT + terminal() + DONE,
    "DONE without an end": TEXT + DONE + b": bye\n\n" + delta(9),
    "DONE before the end": TEXT + DONE + terminal(),
    "two ends": TEXT + terminal() + terminal(),
    "unnamed events": b"".join(line + b"\n" for line in (TEXT + terminal()).split(b"\n") if line[:5] != b"event"),
    "CRLF": (b": hi\n\n" + TEXT + terminal()).replace(b"\n", b"\r\n"),
    "CR": (TEXT + terminal()).replace(b"\n", b"\r"),
    "error": TEXT + event("error", 3, code="x", message="boom", param=None),
    "cut in the terminal event": TEXT + terminal()[:-9],
    "no blank line at the end": TEXT + terminal()[:-1],
    "no line end at the end": TEXT + terminal()[:-2],
    "no object": TEXT + b"event: response.completed\ndata: 5\n\n",
    "no response": TEXT + event("response.completed", 3),
    "odd usage": TEXT + terminal(usage={"input_tokens": 1.5, "output_tokens": 1}),
    "odd type": TEXT + b'data: {"type":["response.completed"],"sequence_number":3,"error":null}\n\n' + terminal(),
}
# For each: usage, ended, unmetered, error seen; and what the client never gets.
EXPECTED: dict[str, tuple[TokenUsage | None, bool, bool, bool, bytes]] = {
    "completed": (TokenUsage(11, 7, 3), True, False, False, b""),
    "incomplete": (TokenUsage(11, 7, 3), True, False, False, b""),
    "failed": (None, True, False, True, b""),
    "DONE after the end": (TokenUsage(11, 7, 3), True, False, False, b""),
    "DONE without an end": (None, False, False, False, DONE + delta(9)),
    "DONE before the end": (TokenUsage(11, 7, 3), True, False, False, b""),
    "two ends": (TokenUsage(11, 7, 3), True, True, False, b""),
    "unnamed events": (TokenUsage(11, 7, 3), True, False, False, b""),
    "CRLF": (TokenUsage(11, 7, 3), True, False, False, b""),
    "CR": (TokenUsage(11, 7, 3), True, False, False, b""),
    "error": (None, False, False, True, b""),
    "cut in the terminal event": (None, False, False, False, terminal()[:-9]),
    "no blank line at the end": (TokenUsage(11, 7, 3), True, False, False, b""),
    "no line end at the end": (TokenUsage(11, 7, 3), True, False, False, b""),
    "no object": (None, True, True, False, b""),
    "no response": (None, True, True, False, b""),
    "odd usage": (None, True, True, False, b""),
    "odd type": (TokenUsage(11, 7, 3), True, False, False, b""),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_responses_scenario_is_verbatim_and_the_same_at_every_cut(name: str) -> None:
    stream = SCENARIOS[name]
    usage, ended, unmetered, error_seen, never = EXPECTED[name]
    tap = responses_tap()
    fed, late = drive(tap, [stream])
    assert (tap.usage, tap.ended, tap.unmetered, tap.error_seen) == (usage, ended, unmetered, error_seen)
    assert tap.finished == ended
    total = fed + late
    if name == "DONE without an end":
        assert total == TEXT + b": bye\n\n"
    else:
        whole = stream.removesuffix(never)
        assert total.startswith(whole)
        assert total[len(whole) :] in (b"", b"\n", b"\n\n")
    assert tap.delivered_bytes == len(total)
    for chunks in [one_by_one(stream)] + [[stream[:at], stream[at:]] for at in range(len(stream))]:
        other = responses_tap()
        assert drive(other, chunks) == (fed, late)
        assert outcome(other) == outcome(tap)
        assert other.sequence_number == tap.sequence_number


@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if expected[1]])
def test_no_byte_of_the_terminal_event_leaves_before_it_is_asked_for(name: str) -> None:
    tap = responses_tap()
    fed = b"".join(tap.feed(byte) for byte in one_by_one(SCENARIOS[name]))
    assert fed.replace(b": hi\r\n\r\n", b"").count(b"sequence_number") <= 4
    assert b'"status":"completed"' not in fed
    assert b'"status":"failed"' not in fed
    tap.release()
    assert tap.ending() != b""


def test_deltas_are_passed_on_as_the_objects_that_they_are() -> None:
    tap = responses_tap()
    tap.feed(b": hello\n\n")
    for item in (delta(1), delta(2, 'error response.completed "'), delta(3) * 3, delta(4).replace(b"\n", b"\r\n")):
        assert tap.feed(item) is item
    assert tap.delivered_events == 6


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_sequence_number_is_the_last_one_seen(end: bytes) -> None:
    tap = responses_tap()
    assert tap.sequence_number == 0
    numbers = []
    for data in (CREATED, delta(1) + delta(2), b": wait\n\n", delta(3), event("response.queued", 4)):
        tap.feed(data.replace(b"\n", end))
        numbers.append(tap.sequence_number)
    assert numbers == [0, 2, 2, 3, 4]


def test_a_response_that_is_cut_has_no_end() -> None:
    tap = responses_tap()
    assert tap.feed(TEXT + terminal()[:-30]) == TEXT
    assert (tap.release(), tap.ended, tap.finished, tap.sequence_number) == (b"", False, False, 2)
