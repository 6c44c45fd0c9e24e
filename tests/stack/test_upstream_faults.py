"""What upstreams do wrong, what the client is told, and what is billed (docs/http-api.md, "Errors")."""

import socket
from collections.abc import Iterator

import pytest

from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually
from tests.harness.scripted_upstream import ScriptedUpstream
from tests.harness.stack import Customer, Json, Stack, metric
from tests.harness.upstream_answer import Answer, Ending, answer_from_options
from tests.stack.client import CHAT, RESPONSES, Client, chat, responses

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS = {"edge": {"comment_interval_s": 0.15}}
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's meanwhile
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1"


async def assert_free(stack: Stack, customer: Customer, attempts: list[tuple[int, str]]) -> None:
    """One request was recorded, with these attempts, and cost nothing."""
    [request] = await stack.settled(customer, 1)
    assert request.charged_nanousd == 0
    assert [(each.status_code, each.failure) for each in request.event.attempts] == attempts


# ---- statuses ----


@pytest.mark.parametrize("status", [400, 404, 408, 409, 413, 422, 429, 500, 501, 503, 529])
@BOTH
async def test_an_upstreams_error_passes_unchanged(
    stack: Stack, client: Client, customer: Customer, status: int, stream: bool
) -> None:
    stack.upstream.script(Answer(status=status, retry_after="7"))
    answer = await client.chat(chat(stream=stream))
    assert answer.status == status
    assert answer.json["error"]["code"] == f"scripted_{status}"
    assert answer.header("retry-after") == "7"
    assert answer.header("x-request-id")
    failure = "status" if status == 429 or status >= 500 else ""
    await assert_free(stack, customer, [(status, failure)])


async def test_a_proxys_page_passes_unchanged_too(stack: Stack, client: Client) -> None:
    page = answer_from_options({"mode": "html_502"})
    stack.upstream.script(page)
    answer = await client.chat(chat(stream=True))
    assert (answer.status, answer.header("content-type"), answer.body) == (502, "text/html", page.body)


@pytest.mark.parametrize("status", [401, 402, 403])
@BOTH
async def test_refused_credentials_of_ours_are_never_the_customers_fault(
    stack: Stack, client: Client, customer: Customer, status: int, stream: bool
) -> None:
    stack.upstream.script(Answer(status=status))
    answer = await client.chat(chat(stream=stream))
    assert (answer.status, answer.error["type"], answer.error["code"]) == (502, "server_error", "upstream_error")
    assert answer.header("x-should-retry") == "false"
    assert b"scripted" not in answer.body
    await assert_free(stack, customer, [(status, "status")])


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_a_redirect_is_not_an_answer(stack: Stack, client: Client, customer: Customer, status: int) -> None:
    stack.upstream.script(Answer(status=status, headers=(("Location", "http://10.0.0.1/"),)))
    answer = await client.chat()
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert answer.header("location") is None
    await assert_free(stack, customer, [(status, "status")])


async def test_an_error_that_reports_usage_is_billed(stack: Stack, client: Client, customer: Customer) -> None:
    stack.upstream.script(answer_from_options({"mode": "error_with_usage"}))
    assert (await client.chat()).status == 500
    [request] = await stack.settled(customer, 1)
    assert request.charged_nanousd == 13_000


# ---- no answer ----


@pytest.mark.parametrize("mode", ["garbage", "reset_before_headers", "close_before_headers"])
@BOTH
async def test_garbage_and_hanging_up_are_502(
    stack: Stack, client: Client, customer: Customer, mode: str, stream: bool
) -> None:
    stack.upstream.close_connections()
    await eventually(lambda: not stack.upstream.open_connections)
    stack.upstream.script(answer_from_options({"mode": mode}))
    answer = await client.chat(chat(stream=stream))
    assert (answer.status, answer.error["type"], answer.error["code"]) == (502, "server_error", "upstream_error")
    assert answer.header("x-should-retry") == "false"
    assert len(stack.upstream.requests) == 1
    await assert_free(stack, customer, [(0, "garbage" if mode == "garbage" else "closed")])


@BOTH
async def test_a_refused_connection_is_503_with_retry_after(
    stack: Stack, client: Client, customer: Customer, stream: bool, closed_port: str
) -> None:
    model = await stack.offer_new([{"base_url": closed_port}])
    answer = await client.chat(chat(stream=stream, model=model))
    assert (answer.status, answer.error["type"], answer.error["code"]) == (503, "server_error", None)
    assert answer.header("retry-after") == "1"
    assert answer.header("x-should-retry") is None
    await assert_free(stack, customer, [(0, "connect")])


@BOTH
async def test_an_upstream_that_does_not_start_in_time_is_504(
    stack: Stack, client: Client, customer: Customer, stream: bool
) -> None:
    model = await stack.offer_new([{"first_byte_timeout_s": "0.2"}])
    stack.upstream.script(Answer(ending=Ending.STALL))
    answer = await client.chat(chat(stream=stream, model=model))
    assert (answer.status, answer.error["type"], answer.error["code"]) == (504, "server_error", "upstream_timeout")
    assert answer.header("x-should-retry") == "false"
    await assert_free(stack, customer, [(0, "first_byte_timeout")])
    await eventually(lambda: stack.upstream.reported[0].peer_gone)  # it is told to stop


async def test_a_whole_answer_that_breaks_off_is_502_and_not_generated_twice(
    stack: Stack, client: Client, customer: Customer
) -> None:
    model = await stack.offer_new([{}, {}])
    stack.upstream.script(Answer(ending=Ending.RESET, ending_after=0))
    answer = await client.chat(chat(model=model))
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert len(stack.upstream.requests) == 1
    await assert_free(stack, customer, [(0, "closed")])


# ---- failover ----


@pytest.mark.parametrize(
    "first",
    [Answer(status=500), Answer(status=503), Answer(status=429), Answer(status=401), Answer(ending=Ending.RESET)],
    ids=["500", "503", "429", "401", "reset"],
)
@BOTH
async def test_the_next_deployment_is_tried_before_the_first_byte(
    stack: Stack, client: Client, customer: Customer, first: Answer, stream: bool
) -> None:
    model = await stack.offer_new([{"upstream_model": "first"}, {"upstream_model": "second"}])
    stack.upstream.close_connections()
    await eventually(lambda: not stack.upstream.open_connections)
    stack.upstream.script(first)
    answer = await client.chat(chat(stream=stream, model=model))
    assert answer.status == 200
    assert [request.json["model"] for request in stack.upstream.requests] == ["first", "second"]
    [request] = await stack.settled(customer, 1)
    assert request.charged_nanousd == 13_000
    assert request.event.deployment_id == f"{model.replace('/', '-')}-1"
    assert [each.deployment_id for each in request.event.attempts] == [
        f"{model.replace('/', '-')}-0",
        f"{model.replace('/', '-')}-1",
    ]


async def test_a_deployment_that_cannot_be_reached_is_passed_over(
    stack: Stack, client: Client, customer: Customer, closed_port: str
) -> None:
    model = await stack.offer_new([{"base_url": closed_port}, {}])
    before = metric("tollgate_edge_upstream_failovers_total", model=model)
    assert (await client.chat(chat(model=model))).status == 200
    assert metric("tollgate_edge_upstream_failovers_total", model=model) == before + 1
    # While it cools down the other one is asked first.
    assert (await client.chat(chat(model=model))).status == 200
    first, second = await stack.settled(customer, 2)
    assert [len(each.event.attempts) for each in (first, second)] == [2, 1]


async def test_attempts_are_bounded(stack: Stack, client: Client, customer: Customer) -> None:
    model = await stack.offer_new([{}] * 6)
    stack.upstream.script(*[Answer(status=500)] * 6)
    assert (await client.chat(chat(model=model))).status == 500
    assert len(stack.upstream.requests) == 3
    await assert_free(stack, customer, [(500, "status")] * 3)


async def test_a_bad_request_is_not_sent_elsewhere(stack: Stack, client: Client) -> None:
    model = await stack.offer_new([{}, {}])
    stack.upstream.script(Answer(status=400))
    assert (await client.chat(chat(model=model))).status == 400
    assert len(stack.upstream.requests) == 1


async def test_a_stream_that_has_begun_never_moves(stack: Stack, client: Client, customer: Customer) -> None:
    model = await stack.offer_new([{}, {}])
    stack.upstream.script(answer_from_options({"mode": "reset_mid_stream"}))
    answer = await client.chat(chat(stream=True, model=model))
    assert answer.status == 200
    assert answer.events[-1]["error"]["code"] == "upstream_error"
    assert len(stack.upstream.requests) == 1


async def test_traffic_follows_priority_and_weight(stack: Stack, client: Client) -> None:
    weights: list[Json] = [{"weight": 3, "priority": 0}, {"weight": 1, "priority": 0}, {"weight": 100, "priority": 1}]
    model = await stack.offer_new([{**each, "upstream_model": str(n)} for n, each in enumerate(weights)])
    async with client.connected() as connection:
        for _ in range(200):
            await connection.send(client.post(chat(max_tokens=1, model=model)))
            assert (await connection.whole()).status == 200
    counts = [sum(request.json["model"] == str(n) for request in stack.upstream.requests) for n in range(3)]
    assert counts[2] == 0
    assert 110 <= counts[0] <= 185  # of 200 by three quarters: eight standard deviations


# ---- kept connections ----


@pytest.mark.parametrize("mode", ["close_on_next", "reset_on_next"])
@BOTH
async def test_a_stale_connection_is_replaced_silently(
    stack: Stack, client: Client, customer: Customer, mode: str, stream: bool
) -> None:
    model = await stack.offer_new()
    stack.upstream.script(answer_from_options({"mode": mode}))
    for _ in range(2):
        assert (await client.chat(chat(stream=stream, model=model))).status == 200
    assert stack.upstream.record.dropped == 1
    assert len(stack.upstream.requests) == 2
    for request in await stack.settled(customer, 2):
        assert len(request.event.attempts) == 1
        assert request.charged_nanousd == 13_000


async def test_connections_are_kept_and_used_again(stack: Stack, client: Client) -> None:
    model = await stack.offer_new()
    for stream in (False, True, False):
        assert (await client.chat(chat(stream=stream, model=model))).status == 200
    assert len({request.connection for request in stack.upstream.requests}) == 1


async def test_a_moved_server_is_found_at_once(stack: Stack, client: Client) -> None:
    model = await stack.offer_new()
    assert (await client.chat(chat(model=model))).status == 200
    async with ScriptedUpstream() as other:
        model = await stack.offer_new([{"base_url": f"{other.url}/v1"}])
        assert (await client.chat(chat(model=model))).status == 200
        assert len(other.requests) == 1


# ---- streams that break ----


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("mode", ["reset_mid_stream", "close_mid_stream"])
async def test_a_broken_stream_gets_one_error_event_and_no_done(
    stack: Stack, client: Client, customer: Customer, path: str, mode: str
) -> None:
    stack.upstream.script(answer_from_options({"mode": mode}))
    answer = await client.chat(chat(stream=True) if path == CHAT else responses(stream=True), path=path)
    assert b"[DONE]" not in answer.body
    *events, last = answer.events
    assert len(events) == 3
    error = last["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "upstream_error", None)
    if path == CHAT:
        assert last.keys() == {"error"}
    else:
        assert answer.body.count(b"event: error\n") == 1
        assert last.keys() == {"type", "sequence_number", "code", "message", "param", "error"}
        assert (last["type"], last["sequence_number"]) == ("error", events[-1]["sequence_number"] + 1)
        assert (last["code"], last["message"]) == (error["code"], error["message"])
    [request] = await stack.settled(customer, 1)
    assert (request.event.ending, request.charged_nanousd) == (pb.ENDING_UPSTREAM_FAILED, 0)


async def test_a_stream_that_falls_silent_ends_with_a_timeout(stack: Stack, client: Client) -> None:
    model = await stack.offer_new([{"idle_timeout_s": "0.2"}])
    stack.upstream.script(answer_from_options({"mode": "stall_mid_stream"}))
    answer = await client.chat(chat(stream=True, model=model))
    assert answer.events[-1]["error"]["code"] == "upstream_timeout"
    assert b"[DONE]" not in answer.body


async def test_a_broken_stream_is_billed_by_what_it_had_reported(
    stack: Stack, client: Client, customer: Customer
) -> None:
    stack.upstream.script(answer_from_options({"mode": "reset_mid_stream+usage_cumulative", "ending_after": 4}))
    answer = await client.chat(chat(stream=True))
    assert answer.events[-1]["error"]["code"] == "upstream_error"
    [request] = await stack.settled(customer, 1)
    assert request.event.source == pb.USAGE_SOURCE_UPSTREAM_PARTIAL
    assert request.charged_nanousd == 3 * 1000 + 3 * 2000


@pytest.mark.parametrize("usage", ["usage_last_content", "ok"])
async def test_an_upstream_that_dies_after_the_finish_has_finished(
    stack: Stack, client: Client, customer: Customer, usage: str
) -> None:
    stack.upstream.script(answer_from_options({"mode": f"{usage}+reset_mid_stream", "ending_after": 7}))
    answer = await client.chat(chat(stream=True))
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert not any("error" in event for event in answer.events)
    [request] = await stack.settled(customer, 1)
    assert request.event.ending == pb.ENDING_COMPLETED
    measured = usage == "usage_last_content"
    assert request.event.outcome == (pb.OUTCOME_MEASURED if measured else pb.OUTCOME_ESTIMATED)
    assert [(each.status_code, each.failure) for each in request.event.attempts] == [(200, "closed")]


async def test_an_error_event_of_the_upstream_is_passed_on(stack: Stack, client: Client, customer: Customer) -> None:
    stack.upstream.script(answer_from_options({"mode": "error_event"}))
    answer = await client.chat(chat(stream=True))
    assert [event["error"]["message"] for event in answer.events if "error" in event] == ["the engine died"]
    [request] = await stack.settled(customer, 1)
    assert (request.event.ending, request.charged_nanousd) == (pb.ENDING_UPSTREAM_FAILED, 0)


# ---- the status is spent ----


async def test_silence_in_a_stream_is_filled_with_comments(stack: Stack, client: Client) -> None:
    stack.upstream.script(Answer(gap_ms=350, events=1))
    answer = await client.chat(chat(stream=True))
    assert answer.body.count(b": keep-alive\n\n") >= 1
    assert answer.events[-1]["usage"]["completion_tokens"] == 1


# ---- stream_options refused ----


async def test_a_server_that_refuses_stream_options_is_asked_without_and_remembered(
    stack: Stack, client: Client, customer: Customer
) -> None:
    model = await stack.offer_new()
    old = answer_from_options({"mode": "refuse_stream_options+usage_last_content"})
    stack.upstream.script(*[old] * 3)
    for _ in range(2):
        answer = await client.chat(chat(stream=True, model=model))
        assert answer.status == 200
        assert answer.events[-1]["usage"]["total_tokens"] == 8
    asked = ["stream_options" in request.json for request in stack.upstream.requests]
    assert asked == [True, False, False]
    assert [each.charged_nanousd for each in await stack.settled(customer, 2)] == [13_000, 13_000]


async def test_a_deployment_that_is_said_not_to_accept_stream_options_gets_none(stack: Stack, client: Client) -> None:
    model = await stack.offer_new([{"accepts_stream_options": False}])
    stack.upstream.script(answer_from_options({"mode": "usage_last_content"}))
    answer = await client.chat(chat(stream=True, model=model))
    assert answer.events[-1]["usage"]["total_tokens"] == 8
    assert "stream_options" not in stack.upstream.requests[0].json


async def test_what_the_client_asked_for_itself_is_the_upstreams_to_refuse(stack: Stack, client: Client) -> None:
    stack.upstream.script(answer_from_options({"mode": "refuse_stream_options"}))
    answer = await client.chat(chat(stream=True, stream_options={"include_usage": True}))
    assert (answer.status, answer.json["error"]["param"]) == (400, "stream_options")
    assert len(stack.upstream.requests) == 1
