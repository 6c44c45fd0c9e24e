"""The bench measures what it says: honest payloads, a client that notices lost answers, goals that can be missed."""

import pytest

from bench.client import Load, run_load
from bench.payload import EVENTS, MODEL, answer, events, question
from bench.report import BASELINE, missed, ratio
from bench.rounds import Measurements
from tests.harness.scripted_upstream import ScriptedUpstream


def test_questions_and_answers_are_a_kilobyte_and_events_about_200_bytes() -> None:
    assert {len(question(MODEL, stream=stream)) for stream in (True, False)} == {1024}
    assert len(answer()) == 1024
    stream = events()
    assert len(stream) == EVENTS
    assert all(190 <= len(event) <= 280 for event in stream)
    assert b'"usage"' in stream[-1]
    assert stream[-1].endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("rate_per_s", [0, 200])
async def test_the_client_counts_whole_answers(rate_per_s: float) -> None:
    async with ScriptedUpstream() as upstream:
        for model, stream in (("scripted/ok", False), ("scripted/byte-by-byte:events=64", True)):
            load = Load(upstream.url, "sk-x", model, stream, connections=2, requests=4, rate_per_s=rate_per_s)
            result = await run_load(load)
            assert (result.completed, result.failures) == (4, [])
            assert result.events == (4 * (EVENTS + 3) if stream else 0)
            assert len(result.latency_ms) == (4 if rate_per_s else 0)
        assert upstream.requests[0].header("authorization") == "Bearer sk-x"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("scripted/close-mid-stream", "connection lost"),
        ("scripted/ok:events=60", "only 63 of 65 events"),
        ("scripted/status:status=503", "status 503"),
    ],
)
async def test_the_client_notices_a_lost_answer(model: str, why: str) -> None:
    async with ScriptedUpstream() as upstream:
        result = await run_load(Load(upstream.url, "sk-x", model, stream=True, connections=1, requests=1))
    assert why in result.failures[0]


def test_a_goal_is_missed_by_a_higher_median_or_by_not_being_measured() -> None:
    base = Measurements({"edge_cpu_us_per_request": [100.0, 400.0, 300.0], "edge_cpu_us_per_stream": [1000.0]})
    own = Measurements(
        {
            "edge_cpu_us_per_request": [330.0],
            "services_cpu_us_per_request": [30.0],
            "edge_cpu_us_per_stream": [999.0],
            "edge_mb_at_open_streams": [151.0],
        }
    )
    results = {BASELINE: base, "tollgate": own}
    assert ratio(results, "tollgate", "edge_cpu_us_per_request") == 1.1
    assert ratio(results, "tollgate", "services_cpu_us_per_request") == 0.1
    assert [miss.split(": ")[2] for miss in missed(results, "tollgate")] == [
        "1.10, goal <= 1x",
        "not measured, goal <= 0.1x",
        "151.00, goal < 150",
    ]
