"""A service that is down is felt as late as possible, and as 503 then, never as 401 and never for free."""

import asyncio
import time
from dataclasses import replace

import pytest

import edge.assembly
from edge.assembly import metering_settings
from edge.metering.spool_format import FRAME_BYTES_MAX
from protos.usage.v1 import usage_pb2
from tests.harness.eventually import eventually
from tests.harness.scripted_upstream import ScriptedUpstream
from tests.harness.stack import MODEL
from tests.harness.upstream_answer import Answer, Ending
from tests.stack.client import Client, chat
from tests.stack.conftest import OpenStack

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_revoked_key_stops_working_within_a_second(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    customer, other = await stack.customer(), await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    assert (await client.chat()).status == 200
    start_s = time.monotonic()
    await stack.revoke(customer)

    async def refused() -> bool:
        return (await client.chat()).status == 401

    await eventually(refused, 1.0)
    assert time.monotonic() - start_s < 1.0
    assert (await Client(stack.edge_url, other.secret).chat()).status == 200


async def test_a_new_key_works_at_once_even_if_it_was_tried_before(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    account = await stack.create_account()
    await stack.grant(account, 1)
    for _ in range(3):
        customer = await stack.create_key(account)
        assert (await Client(stack.edge_url, customer.secret).chat()).status == 200


async def test_without_auth_svc_known_keys_work_and_unknown_ones_get_503(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    known, unknown = await stack.customer(), await stack.customer()
    client = Client(stack.edge_url, known.secret)
    assert (await client.chat()).status == 200
    await stack.stop("auth")
    assert (await client.chat()).status == 200
    answer = await Client(stack.edge_url, unknown.secret).chat()
    assert (answer.status, answer.error["type"], answer.error["code"]) == (503, "server_error", None)
    assert 1 <= int(answer.header("retry-after") or "") <= 60
    assert (await Client(stack.edge_url, "garbage").chat()).status == 401
    await stack.start("auth")

    async def serves() -> bool:
        return (await Client(stack.edge_url, unknown.secret).chat()).status == 200

    await eventually(serves)


async def test_without_auth_svc_known_keys_stop_at_their_stated_age_with_503(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"key_max_age_s": 0.3})
    client = Client(stack.edge_url, (await stack.customer()).secret)
    assert (await client.chat()).status == 200
    await stack.stop("auth")

    async def status_is_503() -> bool:
        return (await client.chat()).status == 503

    await eventually(status_is_503)


async def test_a_key_revoked_while_the_edge_was_cut_off_stops_when_it_is_back(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    assert (await client.chat()).status == 200
    for _ in range(2):  # the second time its watch resumes after a revision of its own
        await stack.restart("auth")
        assert (await client.chat()).status == 200
    await stack.revoke(customer)

    async def refused() -> bool:
        return (await client.chat()).status == 401

    await eventually(refused, 3.0)


async def test_an_edge_that_starts_without_catalog_svc_serves_its_last_catalog(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    client = Client(stack.edge_url, (await stack.customer()).secret)
    assert (await client.chat()).status == 200
    await stack.stop("edge")
    await stack.stop("catalog")
    await stack.start("edge")

    async def ready() -> bool:
        return (await client.ask("GET", "/readyz")).status == 200

    await eventually(ready)
    assert (await client.chat()).status == 200


async def test_an_edge_that_never_saw_a_catalog_is_not_ready_and_says_503(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    client = Client(stack.edge_url, (await stack.customer()).secret)
    await stack.stop("edge")
    (stack.folder / "edge" / "catalog.snapshot").unlink()
    await stack.stop("catalog")
    await stack.start("edge")
    ready = await client.ask("GET", "/readyz")
    assert (ready.status, ready.json["status"]) == (503, "unready")
    assert any("catalog" in each for each in ready.json["missing"])
    for answer in (await client.chat(), await client.ask("GET", "/v1/models")):
        assert (answer.status, answer.error["type"]) == (503, "server_error")
        assert answer.header("retry-after")
    await stack.start("catalog")

    async def serves() -> bool:
        return (await client.chat()).status == 200

    await eventually(serves)


async def test_a_catalog_file_that_is_damaged_is_replaced(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    client = Client(stack.edge_url, (await stack.customer()).secret)
    await stack.stop("edge")
    (stack.folder / "edge" / "catalog.snapshot").write_bytes(b"\xff" * 100)
    await stack.start("edge")

    async def serves() -> bool:
        return (await client.chat()).status == 200

    await eventually(serves)


async def test_a_new_catalog_is_everywhere_within_a_second(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    client = Client(stack.edge_url, (await stack.customer()).secret)
    start_s = time.monotonic()
    model = await stack.offer_new()
    assert (await client.chat(chat(model=model))).status == 200
    assert time.monotonic() - start_s < 1.0
    await stack.withdraw(model)
    assert (await client.chat(chat(model=model))).status == 400


async def test_deployments_may_come_and_go_under_load(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    client = Client(stack.edge_url, (await stack.customer()).secret)
    stack.upstream.default = Answer(gap_ms=2)
    done = asyncio.Event()
    statuses: list[int] = []

    async def load() -> None:
        while not done.is_set():
            statuses.append((await client.chat(chat(stream=True, max_tokens=3))).status)

    async with ScriptedUpstream() as other, asyncio.TaskGroup() as group:
        group.create_task(load())
        for number in range(6):
            url = (stack.upstream.url, other.url)[number % 2]
            await stack.offer(MODEL, [{"id": f"d-{number % 3}", "base_url": f"{url}/v1"}])
        await stack.offer()
        done.set()
    assert len(statuses) > 3
    assert {*statuses} == {200}


async def test_without_usage_svc_the_edge_serves_on_from_its_lease_and_loses_nothing(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    for _ in range(3):
        assert (await client.chat(chat(max_tokens=5))).status == 200
    await stack.stop("usage")
    served = 0
    for _ in range(10):
        served += (await client.chat(chat(max_tokens=5))).status == 200
    assert served == 10
    await stack.start("usage")
    found = await stack.settled(customer, 13, 10.0)
    assert sum(each.charged_nanousd for each in found) == 13 * 13_000
    await stack.audit()


async def test_without_usage_svc_a_stranger_gets_503_and_is_served_when_it_is_back(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"rpc_timeout_s": 1})
    stranger = await stack.customer()
    await stack.stop("usage")
    client = Client(stack.edge_url, stranger.secret)
    answer = await client.chat()
    assert (answer.status, answer.error["type"], answer.error["code"]) == (503, "server_error", None)
    assert answer.header("retry-after")
    assert stack.upstream.requests == []
    await stack.start("usage")

    async def serves() -> bool:
        return (await client.chat()).status == 200

    await eventually(serves, 10.0)
    [request] = await stack.settled(stranger, 1)
    assert request.charged_nanousd == 13_000


async def test_an_edge_that_restarts_ships_what_it_had_not(
    fresh_stack: OpenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        edge.assembly, "metering_settings", lambda settings: replace(metering_settings(settings), drain_s=0.3)
    )
    stack = await fresh_stack()
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    assert (await client.chat(chat(max_tokens=5))).status == 200
    await stack.settled(customer, 1)
    await stack.stop("usage")
    assert (await client.chat(chat(max_tokens=5))).status == 200
    await stack.stop("edge")
    await stack.start("usage")
    await stack.start("edge")
    found = await stack.settled(customer, 2, 10.0)
    assert [each.charged_nanousd for each in found] == [13_000, 13_000]
    assert (await client.chat(chat(max_tokens=5))).status == 200
    await stack.settled(customer, 3)
    await stack.audit()


async def test_a_stopping_edge_lets_open_streams_finish(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    async with client.connected() as idle, client.connected() as busy:
        await idle.send(client.post(chat()))
        assert (await idle.whole()).status == 200
        stack.upstream.script(Answer(gap_ms=50))
        await busy.send(client.post(chat(stream=True)))
        assert (await busy.head()).status == 200
        stopping = asyncio.create_task(stack.stop("edge"))
        assert await idle.closed()
        body = b"".join([piece async for piece in busy.pieces()])
        assert body.endswith(b"data: [DONE]\n\n")
        assert await busy.closed()
        await stopping
    await stack.settled(customer, 2)


async def test_a_stopping_edge_says_so_and_serves_on_until_load_balancers_have_heard(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"endpoint_lag_s": 1.0})
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    assert (await client.ask("GET", "/readyz")).status == 200
    stopping = asyncio.create_task(stack.stop("edge"))

    async def not_ready() -> bool:
        return (await client.ask("GET", "/readyz")).status == 503

    await eventually(not_ready, 0.9)
    assert (await client.ask("GET", "/healthz")).status == 200
    assert (await client.chat()).status == 200
    await stopping
    with pytest.raises(ConnectionRefusedError):
        await client.chat()
    await stack.settled(customer, 1)


async def test_a_full_spool_is_503_and_serves_again_when_usage_svc_has_taken_it(fresh_stack: OpenStack) -> None:
    segment_bytes = 4 * FRAME_BYTES_MAX
    stack = await fresh_stack(edge={"spool_segment_bytes": segment_bytes, "spool_bytes_max": 2 * segment_bytes})
    customer = await stack.customer(usd=100)
    client = Client(stack.edge_url, customer.secret)
    assert (await client.chat(chat(max_tokens=1))).status == 200
    await stack.stop("usage")
    served = 1
    async with client.connected() as connection:
        for _ in range(190):
            await connection.send(client.post(chat(max_tokens=1)))
            answer = await connection.whole()
            if answer.status != 200:
                break
            served += 1
    assert (answer.status, answer.error["type"], answer.error["code"]) == (503, "server_error", None)
    assert answer.header("retry-after")
    assert served == len(stack.upstream.requests)
    await stack.start("usage")

    async def serves() -> bool:
        return (await client.chat(chat(max_tokens=1))).status == 200

    await eventually(serves, 10.0)
    await stack.settled(customer, served + 1, 10.0)


async def test_a_connection_that_sends_no_whole_head_is_closed_in_time(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"keep_alive_s": 0.4})
    client = Client(stack.edge_url, (await stack.customer()).secret)
    async with client.connected() as silent, client.connected() as slow, client.connected() as idle:
        await slow.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        await idle.send(client.post(chat()))
        assert (await idle.whole()).status == 200
        assert await idle.closed(2.0)
        assert await silent.closed(2.0)
        assert await slow.closed(2.0)


async def test_an_abandoned_stream_is_not_read_for_ever(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"abandoned_drain_s": 0.3})
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    stack.upstream.script(Answer(ending=Ending.STALL, ending_after=2))
    async with client.connected() as connection:
        await connection.send(client.post(chat(stream=True)))
        await connection.head()
    [request] = await stack.settled(customer, 1)
    assert (request.event.ending, request.event.outcome) == (usage_pb2.ENDING_CLIENT_GONE, usage_pb2.OUTCOME_ESTIMATED)
    assert 0 < request.charged_nanousd <= request.event.hold_nanousd  # leaving early is not free
    await eventually(lambda: stack.upstream.reported[0].peer_gone)  # it is told to stop


async def test_the_end_of_an_edge_waits_for_requests_that_are_not_admitted_yet(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"drain_s": 5.0})
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    request = client.post(chat(), [("Expect", "100-continue")])
    async with client.connected() as connection:
        await connection.send(request[:-10])
        assert (await connection.head()).status == 100  # it waits for the body
        ending = asyncio.create_task(stack.stop("edge"))

        async def takes_nobody() -> bool:
            try:
                async with client.connected():
                    return False
            except OSError:
                return True

        await eventually(takes_nobody)
        await connection.send(request[-10:])
        assert (await connection.whole()).status == 200
        await ending
    [billed] = await stack.settled(customer, 1)
    assert billed.charged_nanousd > 0
