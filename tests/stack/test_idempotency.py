"""Idempotency-Key: the same request is charged once, wherever and however often it comes (docs/http-api.md)."""

import asyncio
import socket
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chassis.lifetime import Lifetime
from edge import idempotency
from edge.assembly import open_edge
from edge.settings import EdgeSettings
from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually
from tests.harness.stack import Customer, Json, Stack, metric
from tests.harness.upstream_answer import Answer, answer_from_options
from tests.stack.client import CHAT, RESPONSES, Client, Response, chat, responses
from tests.stack.conftest import OpenStack

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS = {"edge": {"idempotency_answer_bytes_max": 10_000, "rpc_timeout_s": 2}}
BOTH = pytest.mark.parametrize("path", [CHAT, RESPONSES])
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def keyed(key: str = "") -> list[tuple[str, str]]:
    return [("Idempotency-Key", key or str(uuid.uuid4()))]


def body_of(path: str, **members: object) -> Json:
    made = chat() if path == CHAT else responses()
    return {**made, **members}


async def storing(stack: Stack, usd: float = 5.0) -> tuple[Customer, Client]:
    """A customer whose answers may be kept."""
    customer = await stack.customer(usd, log_outputs=True)
    return customer, Client(stack.edge_url, customer.secret)


async def ask_until_finished(client: Client, body: Json, headers: list[tuple[str, str]], path: str = CHAT) -> Response:
    """Asks as SDKs do: again, while the first request with this key is in flight."""

    async def finished() -> list[Response]:
        answer = await client.chat(body, headers, path)
        in_flight = answer.status == 409 and answer.error["code"] == "idempotency_in_flight"
        assert not in_flight
        return [answer]

    return (await eventually(finished))[0]


def assert_finished(answer: Response, first: str | None) -> None:
    """It was answered before, and the answer was not kept."""
    assert (answer.status, answer.error["code"]) == (409, "idempotency_finished")
    assert answer.header("x-should-retry") == "false"
    assert first is not None
    assert first in answer.error["message"]


# ---- once ----


@BOTH
async def test_a_finished_answer_is_given_again_and_charged_once(stack: Stack, path: str) -> None:
    customer, client = await storing(stack)
    headers = keyed()
    first = await client.chat(body_of(path), headers, path)
    assert (first.status, first.header("idempotent-replayed")) == (200, None)
    for _ in range(2):
        again = await ask_until_finished(client, body_of(path), headers, path)
        assert (again.status, again.body) == (200, first.body)
        assert again.header("idempotent-replayed") == "true"
        assert again.header("content-type") == first.header("content-type")
        assert again.header("x-request-id") == first.header("x-request-id")  # under which it was charged
    assert len(stack.upstream.requests) == 1
    [request] = await stack.settled(customer, 1)
    assert (request.event.request_id, request.charged_nanousd) == (first.header("x-request-id"), 13_000)


@BOTH
@STREAM
async def test_where_answers_may_not_be_kept_the_second_one_is_told_so(
    stack: Stack, client: Client, customer: Customer, path: str, stream: bool
) -> None:
    headers = keyed()
    first = await client.chat(body_of(path, stream=stream), headers, path)
    again = await ask_until_finished(client, body_of(path, stream=stream), headers, path)
    assert_finished(again, first.header("x-request-id"))
    assert len(stack.upstream.requests) == 1
    assert len(await stack.settled(customer, 1)) == 1


@pytest.mark.parametrize(("members", "answer"), [({"stream": True}, Answer()), ({}, Answer(event_chars=5000))], ids=str)
async def test_streams_and_large_answers_are_never_kept(stack: Stack, members: Json, answer: Answer) -> None:
    customer, client = await storing(stack)
    headers = keyed()
    stack.upstream.script(answer)
    first = await client.chat(chat(**members), headers)
    assert first.status == 200
    assert_finished(await ask_until_finished(client, chat(**members), headers), first.header("x-request-id"))
    await stack.settled(customer, 1)


async def test_answers_that_would_wait_beyond_their_bound_are_not_kept(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "UNTOLD_ANSWER_BYTES_MAX", 10)
    _, client = await storing(stack)
    headers = keyed()
    first = await client.chat(headers=headers)
    assert first.status == 200
    assert_finished(await ask_until_finished(client, chat(), headers), first.header("x-request-id"))


@STREAM
async def test_a_second_one_while_the_first_is_in_flight_is_asked_to_wait(
    stack: Stack, client: Client, customer: Customer, stream: bool
) -> None:
    headers = keyed()
    stack.upstream.script(Answer(headers_delay_ms=300))
    first = asyncio.create_task(client.chat(chat(stream=stream), headers))
    await eventually(lambda: stack.upstream.requests)
    second = await client.chat(chat(stream=stream), headers)
    assert (second.status, second.error["code"]) == (409, "idempotency_in_flight")
    assert second.header("retry-after") == "1"
    assert second.header("x-should-retry") is None
    assert (await first).status == 200
    assert len(await stack.settled(customer, 1)) == 1


async def test_of_many_at_once_one_is_made(stack: Stack) -> None:
    customer, client = await storing(stack)
    headers = keyed()
    stack.upstream.script(Answer(headers_delay_ms=200))
    answers = await asyncio.gather(*(client.chat(chat(), headers) for _ in range(20)))
    assert Counter(answer.status for answer in answers) == {200: 1, 409: 19}
    assert len(stack.upstream.requests) == 1
    await stack.settled(customer, 1)


async def test_a_client_that_left_its_stream_finds_it_finished(
    stack: Stack, client: Client, customer: Customer
) -> None:
    headers = keyed()
    stack.upstream.script(Answer(gap_ms=20))
    async with client.connected() as connection:
        await connection.send(client.post(chat(stream=True), headers))
        request_id = (await connection.head()).header("x-request-id")
    assert_finished(await ask_until_finished(client, chat(stream=True), headers), request_id)
    await stack.settled(customer, 1)


# ---- something else ----


async def test_another_body_or_endpoint_under_the_same_key_is_422(
    stack: Stack, client: Client, customer: Customer
) -> None:
    headers = keyed()
    await client.chat(chat(), headers)
    for path, body in ((CHAT, chat("something else")), (CHAT, chat(stream=True)), (RESPONSES, responses())):
        answer = await client.chat(body, headers, path)
        assert (answer.status, answer.error["code"]) == (422, "idempotency_mismatch")
        assert answer.header("x-should-retry") == "false"
    await stack.settled(customer, 1)


async def test_keys_of_two_accounts_do_not_meet(stack: Stack, client: Client, customer: Customer) -> None:
    other, others_client = await storing(stack)
    headers = keyed()
    assert (await client.chat(chat(), headers)).status == 200
    assert (await others_client.chat(chat(), headers)).status == 200
    assert len(stack.upstream.requests) == 2
    await stack.settled(other, 1)


@pytest.mark.parametrize(
    "headers",
    [keyed(" "), keyed("x" * 256), keyed("é"), keyed("tab\there"), [*keyed(), *keyed()]],
    ids=["empty", "long", "not ascii", "control", "two"],
)
async def test_what_cannot_be_a_key_is_400(stack: Stack, client: Client, headers: list[tuple[str, str]]) -> None:
    answer = await client.chat(chat(), headers)
    assert answer.status == 400
    assert "Idempotency-Key" in answer.error["message"]
    assert stack.upstream.requests == []


# ---- ends without a charge and without an answer ----


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's meanwhile
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1"


async def test_who_could_not_pay_may_ask_again_with_the_same_key(stack: Stack) -> None:
    customer, client = await storing(stack, usd=0)
    headers = keyed()
    assert (await client.chat(chat(), headers)).status == 402
    await stack.grant(customer.account_id, 5)

    async def served() -> bool:
        return (await client.chat(chat(), headers)).status == 200

    await eventually(served)
    assert len(stack.upstream.requests) == 1


@BOTH
@STREAM
@pytest.mark.parametrize("mode", ["rate_limited", "unauthorized", "garbage", "status", "reset_before_headers"])
async def test_a_request_that_failed_may_be_repeated_with_the_same_key(
    stack: Stack, client: Client, customer: Customer, path: str, stream: bool, mode: str
) -> None:
    model = await stack.offer_new()
    headers = keyed()
    stack.upstream.script(answer_from_options({"mode": mode}))
    assert (await client.chat(body_of(path, stream=stream, model=model), headers, path)).status >= 400
    assert (await ask_until_finished(client, body_of(path, stream=stream, model=model), headers, path)).status == 200
    charges = [request.charged_nanousd for request in await stack.settled(customer, 2)]
    assert charges == [0, 13_000]


async def test_a_model_that_cannot_be_reached_leaves_the_key_free(
    stack: Stack, client: Client, closed_port: str
) -> None:
    model = await stack.offer_new([{"base_url": closed_port}])
    headers = keyed()
    assert (await client.chat(chat(model=model), headers)).status == 503
    await stack.offer(model)
    assert (await ask_until_finished(client, chat(model=model), headers)).status == 200


async def test_a_stream_that_broke_and_was_not_charged_may_be_repeated(
    stack: Stack, client: Client, customer: Customer
) -> None:
    headers = keyed()
    stack.upstream.script(answer_from_options({"mode": "reset_mid_stream"}))
    broken = await client.chat(chat(stream=True), headers)
    assert broken.events[-1]["error"]["code"] == "upstream_error"
    again = await ask_until_finished(client, chat(stream=True), headers)
    assert again.body.endswith(b"data: [DONE]\n\n")
    assert [each.charged_nanousd for each in await stack.settled(customer, 2)] == [0, 13_000]


async def test_an_error_that_was_charged_is_given_again(stack: Stack) -> None:
    customer, client = await storing(stack)
    headers = keyed()
    stack.upstream.script(answer_from_options({"mode": "error_with_usage"}))
    first = await client.chat(chat(), headers)
    again = await ask_until_finished(client, chat(), headers)
    assert (again.status, again.body, again.header("x-should-retry")) == (500, first.body, "false")
    assert len(await stack.settled(customer, 1)) == 1


# ---- other edges, restarts, outages ----


@asynccontextmanager
async def another_edge(stack: Stack, folder: Path) -> AsyncIterator[str]:
    ports = {name: process.port for name, process in stack.processes.items() if name != "edge"}
    addresses: Json = {f"{name}_address": f"127.0.0.1:{port}" for name, port in ports.items()}
    settings = EdgeSettings(
        listen_port=0, data_dir=folder, endpoint_lag_s=0, drain_s=5, ship_linger_s=0.01, **addresses
    )
    lifetime = Lifetime()
    async with open_edge(settings, lifetime) as edge:
        await eventually(lambda: edge.meter.ready and edge.catalog.current.number > 0)
        yield f"http://127.0.0.1:{edge.port}"
    await lifetime.cancel_supervised()


async def test_a_key_holds_on_every_edge(stack: Stack, tmp_path: Path) -> None:
    customer, client = await storing(stack)
    headers = keyed()
    async with another_edge(stack, tmp_path / "other") as url:
        other = Client(url, customer.secret)
        stack.upstream.script(Answer(headers_delay_ms=300))
        first = asyncio.create_task(client.chat(chat(), headers))
        await eventually(lambda: stack.upstream.requests)
        assert (await other.chat(chat(), headers)).status == 409
        body = (await first).body
        assert (await ask_until_finished(other, chat(), headers)).body == body
    await stack.settled(customer, 1)


async def test_a_key_outlives_restarts_of_edge_and_usage_svc(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    customer, client = await storing(stack)
    headers = keyed()
    first = await client.chat(chat(), headers)
    await stack.restart("edge")
    await stack.restart("usage")
    assert stack.edge is not None
    edge = stack.edge
    await eventually(lambda: edge.meter.ready)
    again = await ask_until_served(Client(stack.edge_url, customer.secret), headers)
    assert (again.status, again.body) == (200, first.body)
    assert len(await stack.settled(customer, 1)) == 1


async def ask_until_served(client: Client, headers: list[tuple[str, str]]) -> Response:
    async def served() -> list[Response]:
        answer = await client.chat(chat(), headers)
        assert answer.status not in (409, 503)
        return [answer]

    return (await eventually(served, 15.0))[0]


async def test_without_usage_svc_a_request_with_a_key_is_503_and_not_unprotected(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"rpc_timeout_s": 0.5})
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    assert (await client.chat()).status == 200
    headers = keyed()
    stack.upstream.script(Answer(headers_delay_ms=500))
    in_flight = asyncio.create_task(client.chat(chat(), headers))
    await eventually(lambda: len(stack.upstream.requests) == 2)
    await stack.stop("usage")
    refused = await client.chat(chat(), keyed())
    assert refused.status == 503
    assert refused.header("retry-after") == "1"
    assert (await client.chat()).status == 200  # from what was leased
    first = await in_flight  # served as ever, and told later
    assert first.status == 200
    assert len(stack.upstream.requests) == 3
    await stack.start("usage")

    async def finished() -> list[Response]:
        answer = await client.chat(chat(), headers)
        assert answer.status != 503
        assert answer.error["code"] != "idempotency_in_flight"
        return [answer]

    [again] = await eventually(finished, 15.0)
    assert_finished(again, first.header("x-request-id"))
    await stack.settled(customer, 3)
    await stack.audit()


async def test_requests_without_a_key_pay_no_call(stack: Stack, client: Client, customer: Customer) -> None:
    method = "/tollgate.usage.v1.MeteringService/ClaimIdempotencyKey"
    before = metric("tollgate_rpc_client_calls_total", method=method, code="OK")
    assert (await client.chat()).status == 200
    assert metric("tollgate_rpc_client_calls_total", method=method, code="OK") == before
    assert (await client.chat(chat(), keyed())).status == 200
    assert metric("tollgate_rpc_client_calls_total", method=method, code="OK") == before + 1
    assert pb.OUTCOME_MEASURED in {each.event.outcome for each in await stack.settled(customer, 2)}
