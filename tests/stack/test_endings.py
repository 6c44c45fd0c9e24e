"""Every way in which a request can end, and what it costs then (docs/billing.md, "How a request can end")."""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from edge.upstream.chat_stream import ChatTap
from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually
from tests.harness.stack import MODEL, Customer, Json, Stack, metric
from tests.harness.upstream_answer import Answer, Ending, Terminal, answer_from_options
from tests.stack.client import CHAT, RESPONSES, Client, chat, responses

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS = {"edge": {"abandoned_drains_max": 1, "abandoned_drain_s": 1.5, "event_bytes_max": 100_000}}
STALLING = Answer(ending=Ending.STALL, ending_after=4)
ABORT: list[Json] = [{"client_gone": "abort"}]
BOTH = pytest.mark.parametrize("path", [CHAT, RESPONSES])


def body_of(path: str, **members: Any) -> Json:
    return chat(**members) if path == CHAT else responses(**members)


def prompt_estimate(model: str = MODEL, words: str = "one two three") -> int:
    """Tokens: a quarter of all text in the body, which is the model's name, what is asked, and in chat the role."""
    return (len(model) + len(words) + len("user")) // 4


async def only(stack: Stack, customer: Customer) -> pb.RequestSummary:
    [request] = await stack.settled(customer, 1)
    return request


def ended(request: pb.RequestSummary) -> tuple[str, str, str]:
    event = request.event
    return (
        pb.Outcome.Name(event.outcome).removeprefix("OUTCOME_").lower(),
        pb.UsageSource.Name(event.source).removeprefix("USAGE_SOURCE_").lower(),
        pb.Ending.Name(event.ending).removeprefix("ENDING_").lower(),
    )


def attempts(request: pb.RequestSummary) -> list[tuple[int, str]]:
    return [(each.status_code, each.failure) for each in request.event.attempts]


async def leave_after_the_first_piece(client: Client, body: Json, path: str = CHAT) -> None:
    async with client.connected() as connection:
        await connection.send(client.post(body, path=path))
        await connection.head()
        await anext(connection.pieces())
        connection.reset()


# ---- client_gone: drain, and its bounds ----


@BOTH
async def test_a_stream_that_is_read_on_for_too_long_is_closed_and_estimated_by_what_was_delivered(
    stack: Stack, client: Client, customer: Customer, path: str
) -> None:
    before = metric("tollgate_edge_abandoned_streams_total", how="timeout")
    stack.upstream.script(STALLING)
    await leave_after_the_first_piece(client, body_of(path, stream=True), path)
    request = await only(stack, customer)
    assert ended(request) == ("estimated", "estimated", "client_gone")
    assert attempts(request) == [(200, "abandoned")]
    tokens = request.event.tokens
    assert tokens.completion_tokens == 4
    assert request.charged_nanousd == tokens.prompt_tokens * 1000 + 4 * 2000 <= request.event.hold_nanousd
    assert metric("tollgate_edge_abandoned_streams_total", how="timeout") == before + 1
    await eventually(lambda: stack.upstream.reported[0].peer_gone)


async def test_streams_beyond_the_number_that_is_read_on_are_closed_at_once_and_estimated(
    stack: Stack, client: Client, customer: Customer
) -> None:
    other = await stack.customer()
    stack.upstream.script(Answer(gap_ms=60), STALLING)
    await leave_after_the_first_piece(Client(stack.edge_url, other.secret), chat(stream=True))
    await eventually(lambda: metric("tollgate_edge_abandoned_drains") == 1)
    before = metric("tollgate_edge_abandoned_streams_total", how="bound")
    await leave_after_the_first_piece(client, chat(stream=True))
    request = await only(stack, customer)
    assert ended(request) == ("estimated", "estimated", "client_gone")
    assert request.charged_nanousd > prompt_estimate() * 1000
    assert metric("tollgate_edge_abandoned_streams_total", how="bound") == before + 1
    assert ended(await only(stack, other)) == ("measured", "upstream_final", "client_gone")
    await eventually(lambda: metric("tollgate_edge_abandoned_drains") == 0)


async def test_leaving_before_the_first_byte_is_not_free_either(
    stack: Stack, client: Client, customer: Customer
) -> None:
    stack.upstream.script(Answer(ending=Ending.STALL))
    async with client.connected() as connection:
        await connection.send(client.post(chat(stream=True)))
        await eventually(lambda: stack.upstream.requests)
    request = await only(stack, customer)
    assert ended(request) == ("estimated", "estimated", "client_gone")
    assert (request.event.status_code, request.event.tokens.completion_tokens) == (499, 0)
    assert request.charged_nanousd == prompt_estimate() * 1000


async def test_clients_that_leave_do_not_make_a_deployment_look_broken(
    stack: Stack, client: Client, customer: Customer
) -> None:
    model = await stack.offer_new([{"upstream_model": "first"}, {"upstream_model": "second"}])
    stack.upstream.script(STALLING)
    await leave_after_the_first_piece(client, chat(stream=True, model=model))
    await only(stack, customer)
    assert (await client.chat(chat(model=model))).status == 200
    assert [request.json["model"] for request in stack.upstream.requests] == ["first", "first"]


# ---- client_gone: abort ----


async def test_where_usage_comes_all_the_time_an_abandoned_stream_is_closed_and_costs_what_was_reported(
    stack: Stack, client: Client, customer: Customer
) -> None:
    model = await stack.offer_new(ABORT)
    stack.upstream.script(STALLING)
    async with client.connected() as connection:
        await connection.send(client.post(chat(stream=True, model=model)))
        await connection.head()
        pieces = connection.pieces()
        for _ in range(4):
            await anext(pieces)
        connection.reset()
    request = await only(stack, customer)
    [reported] = stack.upstream.reported
    assert ended(request) == ("measured", "upstream_partial", "client_gone")
    assert reported.usage == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert request.charged_nanousd == 3 * 1000 + 3 * 2000
    assert request.event.duration_ms < 1000  # long before the bound of a drain
    await eventually(lambda: reported.peer_gone)
    assert stack.upstream.requests[0].json["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize("options", [{}, {"include_usage": True}, {"include_usage": False}], ids=str)
@pytest.mark.parametrize("mode", ["ok", "crlf", "multiline", "byte_by_byte", "finish_on_content", "no_done"])
async def test_the_usage_that_only_we_asked_for_is_not_seen(
    stack: Stack, client: Client, customer: Customer, options: Json, mode: str
) -> None:
    bodies = []
    settings: list[list[Json]] = [[{}], ABORT]
    for deployments in settings:
        model = await stack.offer_new([{**each, "upstream_model": "same"} for each in deployments])
        stack.upstream.reset()  # so that both answers have the same id
        stack.upstream.script(answer_from_options({"mode": mode}))
        bodies.append((await client.chat(chat(stream=True, model=model, stream_options=options))).body)
    drained, aborting = bodies
    assert aborting == drained
    assert [each.charged_nanousd for each in await stack.settled(customer, 2)] == [13_000, 13_000]


async def test_who_asks_for_usage_all_the_time_and_may_gets_it(stack: Stack, client: Client) -> None:
    model = await stack.offer_new([{"client_gone": "abort", "allow": ["continuous_usage_stats"]}])
    options = {"include_usage": True, "continuous_usage_stats": True}
    answer = await client.chat(chat(stream=True, model=model, stream_options=options))
    assert all(event["usage"]["prompt_tokens"] == 3 for event in answer.events)


async def test_a_stream_of_responses_is_read_on_even_so(stack: Stack, client: Client, customer: Customer) -> None:
    model = await stack.offer_new(ABORT)
    stack.upstream.script(Answer(gap_ms=10))
    await leave_after_the_first_piece(client, responses(stream=True, model=model), RESPONSES)
    assert ended(await only(stack, customer)) == ("measured", "upstream_final", "client_gone")


async def test_a_server_that_refuses_usage_all_the_time_is_asked_without_it_and_read_on(
    stack: Stack, client: Client, customer: Customer
) -> None:
    model = await stack.offer_new(ABORT)
    deployment = f"{model.replace('/', '-')}-0"
    stack.upstream.script(*[answer_from_options({"mode": "refuse_continuous_usage", "gap_ms": 20})] * 3)
    for count in (1, 2):  # one after the other, since one at a time is read on here
        await leave_after_the_first_piece(client, chat(stream=True, model=model))
        await stack.settled(customer, count)
    for request in await stack.settled(customer, 2):
        assert ended(request) == ("measured", "upstream_final", "client_gone")
    asked = [request.json["stream_options"] for request in stack.upstream.requests]
    assert asked == [{"include_usage": True, "continuous_usage_stats": True}, *[{"include_usage": True}] * 2]
    name = "tollgate_edge_stream_options_refused_until_seconds"
    assert metric(name, deployment=deployment, option="continuous_usage_stats") > 0


# ---- usage that nobody reported ----


@BOTH
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("policy", ["estimate", "waive"])
async def test_a_complete_answer_without_usage_costs_what_the_deployments_policy_says(
    stack: Stack, client: Client, customer: Customer, path: str, stream: bool, policy: str
) -> None:
    model = await stack.offer_new([{"usage_missing": policy}])
    deployment = f"{model.replace('/', '-')}-0"
    stack.upstream.script(answer_from_options({"mode": "no_usage"}))
    assert (await client.chat(body_of(path, stream=stream, model=model), path=path)).status == 200
    request = await only(stack, customer)
    assert metric("tollgate_edge_unmetered_total", deployment=deployment, policy=policy) == 1
    if policy == "waive":
        assert ended(request) == ("waived", "none", "completed")
        assert request.charged_nanousd == 0
        return
    assert ended(request) == ("estimated", "estimated", "completed")
    assert 5 <= request.event.tokens.completion_tokens <= 12  # five events, or 33 characters
    assert 0 < request.charged_nanousd <= request.event.hold_nanousd


async def test_an_estimate_is_never_above_the_hold(stack: Stack, client: Client, customer: Customer) -> None:
    model = await stack.offer_new(max_output_length=2)
    stack.upstream.script(answer_from_options({"mode": "no_usage", "events": 500}))
    await client.chat(chat(stream=True, model=model))
    request = await only(stack, customer)
    assert request.charged_nanousd == request.event.hold_nanousd


@BOTH
@pytest.mark.parametrize("mode", ["reset_mid_stream", "close_mid_stream", "stall_mid_stream", "error_event"])
@pytest.mark.parametrize("policy", ["estimate", "waive"])
async def test_a_stream_that_dies_without_usage_costs_what_the_deployments_policy_says(
    stack: Stack, client: Client, customer: Customer, path: str, mode: str, policy: str
) -> None:
    model = await stack.offer_new([{"upstream_failed": policy, "idle_timeout_s": "0.2"}])
    stack.upstream.script(answer_from_options({"mode": mode}))
    assert (await client.chat(body_of(path, stream=True, model=model), path=path)).status == 200
    request = await only(stack, customer)
    if policy == "waive":
        assert ended(request) == ("waived", "none", "upstream_failed")
    else:
        assert ended(request) == ("estimated", "estimated", "upstream_failed")
        assert request.event.tokens.completion_tokens >= 3
    assert len(request.event.attempts) == 1  # one call was made, however it ended


async def test_a_stream_that_dies_without_usage_is_free_unless_told_otherwise(
    stack: Stack, client: Client, customer: Customer
) -> None:
    stack.upstream.script(answer_from_options({"mode": "reset_mid_stream"}))
    await client.chat(chat(stream=True))
    assert ended(await only(stack, customer)) == ("waived", "none", "upstream_failed")


@pytest.mark.parametrize(
    ("terminal", "ending"), [(Terminal.INCOMPLETE, "estimated"), (Terminal.FAILED, "waived")], ids=str
)
async def test_an_end_of_responses_that_reports_no_usage(
    stack: Stack, client: Client, customer: Customer, terminal: Terminal, ending: str
) -> None:
    stack.upstream.script(answer_from_options({"mode": "no_usage", "terminal": terminal.value}))
    await client.chat(responses(stream=True), path=RESPONSES)
    assert ended(await only(stack, customer))[0] == ending


async def test_a_deployment_that_refuses_stream_options_is_estimated_until_it_reports_usage(
    stack: Stack, client: Client, customer: Customer
) -> None:
    model = await stack.offer_new()
    deployment = f"{model.replace('/', '-')}-0"
    silent = answer_from_options({"mode": "refuse_stream_options+no_usage"})
    telling = answer_from_options({"mode": "refuse_stream_options+usage_last_content"})
    stack.upstream.script(silent, silent, telling)
    for _ in range(2):
        assert (await client.chat(chat(stream=True, model=model))).status == 200
    estimated, measured = await stack.settled(customer, 2)
    assert ended(estimated) == ("estimated", "estimated", "completed")
    assert ended(measured) == ("measured", "upstream_final", "completed")
    assert stack.edge is not None
    url = f"http://127.0.0.1:{stack.edge.metrics_port}/metrics"
    command = [sys.executable, "-m", "tollgate", "models", "refusals", "--metrics-url", url, "--json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    [refusal] = [each for each in json.loads(output)["refusals"] if each["deployment_id"] == deployment]
    assert (refusal["option"], refusal["edge"]) == ("include_usage", url)
    remembered = datetime.fromisoformat(refusal["until_time"]) - datetime.now(UTC)
    assert timedelta(minutes=58) < remembered <= timedelta(hours=1)


# ---- errors ----


@BOTH
async def test_an_error_that_was_charged_asks_not_to_be_repeated(
    stack: Stack, client: Client, customer: Customer, path: str
) -> None:
    stack.upstream.script(answer_from_options({"mode": "error_with_usage"}))
    answer = await client.chat(body_of(path), path=path)
    assert (answer.status, answer.header("x-should-retry")) == (500, "false")
    request = await only(stack, customer)
    assert ended(request) == ("measured", "upstream_final", "upstream_failed")
    assert request.charged_nanousd == 13_000


async def test_an_error_that_was_not_charged_says_nothing_of_repeating(stack: Stack, client: Client) -> None:
    stack.upstream.script(Answer(status=500))
    assert (await client.chat()).header("x-should-retry") is None


@pytest.mark.parametrize("second", ["status", "refused"])
async def test_an_error_after_a_servers_silence_asks_not_to_be_repeated(
    stack: Stack, client: Client, customer: Customer, second: str
) -> None:
    """The first one may still be generating."""
    address = {} if second == "status" else {"base_url": "http://127.0.0.1:1/v1"}
    model = await stack.offer_new([{"first_byte_timeout_s": "0.2"}, address])
    stack.upstream.script(Answer(ending=Ending.STALL), Answer(status=503))
    answer = await client.chat(chat(model=model))
    assert (answer.status, answer.header("x-should-retry")) == (503, "false")
    request = await only(stack, customer)
    assert ended(request) == ("none", "none", "upstream_failed")


# ---- ours ----


@BOTH
async def test_an_event_beyond_the_limit_ends_the_stream_and_what_came_before_is_not_free(
    stack: Stack, client: Client, customer: Customer, path: str
) -> None:
    stack.upstream.script(Answer(events=2, event_chars=200_000))
    answer = await client.chat(body_of(path, stream=True), path=path)
    assert answer.events[-1]["error"]["code"] == "upstream_error"
    request = await only(stack, customer)
    assert ended(request) == ("estimated", "estimated", "upstream_failed")
    assert attempts(request) == [(200, "too_large")]
    assert request.charged_nanousd > 0


@pytest.mark.parametrize("policy", ["estimate", "waive"])
async def test_a_bug_of_ours_while_a_stream_arrives_is_logged_as_one_and_costs_by_the_policy(
    stack: Stack, client: Client, customer: Customer, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    model = await stack.offer_new([{"upstream_failed": policy}])
    feed = ChatTap.feed

    def broken(tap: ChatTap, data: bytes) -> bytes:
        if b'"finish_reason":"stop"' in data.replace(b" ", b""):
            raise RuntimeError("a bug")
        return feed(tap, data)

    monkeypatch.setattr(ChatTap, "feed", broken)
    stack.upstream.script(Answer(events=4, gap_ms=20))
    with capture_logs() as logs:
        answer = await client.chat(chat(stream=True, model=model))
    monkeypatch.undo()
    assert answer.events[-1]["error"]["code"] == "upstream_error"
    assert b"[DONE]" not in answer.body
    assert b"a bug" not in answer.body
    [told] = [each for each in logs if each["event"] == "reading an answer failed"]
    assert repr(told["exc_info"]) == "RuntimeError('a bug')"
    request = await only(stack, customer)
    assert ended(request)[0] == {"estimate": "estimated", "waive": "waived"}[policy]
    assert (request.charged_nanousd > 0) == (policy == "estimate")
    assert (await client.chat(chat(stream=True))).status == 200
    await stack.settled(customer, 2)
    await stack.audit()


async def test_a_bug_of_ours_in_mid_stream_cuts_it_off_and_leaves_one_outcome(
    stack: Stack, client: Client, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(tap: ChatTap) -> bytes:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ChatTap, "release", broken)  # reached once the upstream has died
    stack.upstream.script(answer_from_options({"mode": "reset_mid_stream"}))
    async with client.connected() as connection:
        await connection.send(client.post(chat(stream=True)))
        assert (await connection.head()).status == 200
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError, ValueError)):
            [piece async for piece in connection.pieces()]
    monkeypatch.undo()
    request = await only(stack, customer)
    assert ended(request) == ("none", "none", "upstream_failed")
    assert request.charged_nanousd == 0
    assert (await client.chat()).status == 200
    await stack.settled(customer, 2)
    await stack.audit()
