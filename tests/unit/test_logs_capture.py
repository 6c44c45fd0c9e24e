"""What a capture holds: what its key logs, up to its bounds, and no more than all captures together may."""

import json
from typing import Any

import pytest

from edge.access.key_cache import Grant, Logging
from edge.http.record import RequestRecord
from edge.logs.capture import SECONDS_PER_DAY, Capture, CaptureBounds, MemoryBudget
from edge.openai.chat import read_chat
from protos.usage.v1 import usage_pb2

NOW_S = 1_800_000_000.25


def capture(
    *,
    inputs: bool = True,
    outputs: bool = True,
    days: int = 2,
    budget: int = 10**6,
    bytes_max: int = 1000,
    text: str = "hi",
) -> Capture:
    record = RequestRecord("POST", "/v1/chat/completions", 0.0)
    record.model = "some/model"
    grant = Grant(
        key_id="key-1",
        account_id="acme",
        public_prefix="tg_abc",
        active=True,
        may_infer=True,
        may_manage=False,
        models=frozenset(),
        expire_time_s=float("inf"),
        logging=Logging(inputs, outputs, days),
    )
    body = {"model": "some/model", "stream": True, "messages": [{"role": "user", "content": text}]}
    ask = read_chat(json.dumps(body).encode())
    made = Capture(
        CaptureBounds(bytes_max, 30),
        MemoryBudget(budget),
        record,
        grant,
        usage_pb2.RESOURCE_CHAT_COMPLETIONS,
        ask,
        lambda _ended: None,
    )
    made.ended_at_s = NOW_S
    return made


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


def logged(made: Capture) -> usage_pb2.Log:
    log = made.log()
    assert log is not None
    return log


def text_of(log: usage_pb2.Log) -> Any:
    return json.loads(log.output)["choices"][0]["message"]["content"]


def test_only_what_the_key_logs_is_there() -> None:
    for inputs, outputs in ((True, False), (False, True), (True, True)):
        made = capture(inputs=inputs, outputs=outputs)
        made.streams()
        made.feed(event("yes"))
        log = logged(made)
        assert (log.HasField("input"), log.HasField("output"), log.HasField("output_raw")) == (inputs, outputs, outputs)
        assert log.output_bytes == len(event("yes"))
        assert (log.status_code, log.streamed) == (200, True)


def test_a_request_of_which_nothing_is_logged_makes_no_log() -> None:
    assert capture(inputs=False).log() is None


@pytest.mark.parametrize(("days", "kept_days"), [(2, 2), (0, 30)])
def test_the_expiry_is_the_keys_retention_or_the_operators(days: int, kept_days: int) -> None:
    log = logged(capture(days=days))
    assert log.end_time.ToMilliseconds() == NOW_S * 1000
    assert log.expire_time.ToMilliseconds() == (NOW_S + kept_days * SECONDS_PER_DAY) * 1000


def test_a_raw_stream_is_cut_at_its_bound_and_its_texts_go_on() -> None:
    made = capture(bytes_max=300)
    made.streams()
    pieces = [event(f"{number:04d}") for number in range(20)]
    for piece in pieces:
        made.feed(piece)
    log = logged(made)
    assert log.output_raw == b"".join(pieces)[:300]
    assert log.output_raw_truncated
    assert not log.output_truncated
    assert text_of(log) == "".join(f"{number:04d}" for number in range(20))
    assert log.output_bytes == len(b"".join(pieces))


def test_without_memory_a_capture_is_cut_and_marked_and_takes_no_more_than_there_is() -> None:
    made = capture(budget=500, bytes_max=10_000, text="x" * 10)
    made.streams()
    for _ in range(50):
        made.feed(event("more"))
    assert made.held_bytes <= 500
    log = logged(made)
    assert log.output_truncated
    assert log.output_raw_truncated
    assert 0 < len(log.output_raw) < 500
    assert not log.input_truncated
    large = capture(budget=500, bytes_max=10_000, text="x" * 1000)
    assert large.held_bytes == 0
    log = logged(large)
    assert (log.input, log.input_truncated) == (b"", True)
    assert log.input_bytes > 1000


def test_a_budget_is_given_back() -> None:
    budget = MemoryBudget(100)
    assert budget.take(60)
    assert not budget.take(41)
    budget.give_back(60)
    assert budget.take(100)
