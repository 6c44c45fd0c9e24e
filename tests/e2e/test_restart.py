"""Stopped and started again, or killed: balances and keys stay, and every completed answer is billed exactly once."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import openai
import pytest

from protos.usage.v1 import usage_pb2 as pb
from tests.e2e.customer import (
    MODEL,
    Customer,
    catalog,
    cost_nanousd,
    new_customer,
    reported_cost_nanousd,
    words,
)
from tests.harness.processes import STOP_S_MAX, RunningStack, running_stack
from tests.harness.upstream_answer import Answer
from tests.harness.upstream_process import UpstreamProcess


async def ask_in_every_way(customer: Customer, count: int) -> list[dict[str, Any]]:
    """So many requests at once, streamed and not; the usage that each answer told."""

    async def ask(number: int) -> dict[str, Any]:
        messages = words("word " * (number + 1))
        if number % 2:
            whole = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=100)
            assert whole.usage is not None
            return whole.usage.model_dump()
        stream = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=100, stream=True)
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        return chunks[-1].usage.model_dump()

    async with customer.async_client() as client:
        return await asyncio.gather(*(ask(number) for number in range(count)))


def restarted(customer: Customer, stack: RunningStack) -> Customer:
    """The same customer, at the new addresses."""
    return Customer(stack, customer.account_id, customer.secret)


async def test_ctrl_c_lets_an_open_stream_finish_and_the_next_start_has_the_keys_balances_and_usage(
    tmp_path: Path, upstream: UpstreamProcess
) -> None:
    with running_stack(catalog(upstream.url), tmp_path) as stack:
        customer = new_customer(stack)
        revoked = new_customer(stack)
        key_id = stack.tollgate("keys", "list", revoked.account_id)["keys"][0]["key_id"]
        stack.tollgate("keys", "revoke", key_id)
        seen = await ask_in_every_way(customer, 20)
        # Nothing waits for the ledger here: what was not shipped yet is shipped while stopping, or after the start.
        upstream.script(Answer(events=20, gap_ms=100))
        async with customer.async_client() as client:
            stream = await client.chat.completions.create(model=MODEL, messages=words(), max_tokens=100, stream=True)
            assert (await anext(aiter(stream))).choices
            stack.process.send_signal(signal.SIGINT)
            rest = [chunk async for chunk in stream]
        assert rest[-1].choices[0].finish_reason == "stop"
        assert rest[-1].usage is not None
        seen.append(rest[-1].usage.model_dump())
        assert await asyncio.to_thread(stack.process.wait, STOP_S_MAX) == 0
    with running_stack(None, tmp_path) as stack:  # the catalog in the folder is the operator's, and stays
        customer = restarted(customer, stack)
        await asyncio.to_thread(customer.is_billed, sum(map(cost_nanousd, seen)), requests=21)
        seen += await ask_in_every_way(customer, 10)
        await asyncio.to_thread(customer.is_billed, sum(map(cost_nanousd, seen)), requests=31)
        assert sum(map(cost_nanousd, seen)) == reported_cost_nanousd(upstream)
        with restarted(revoked, stack).client() as client, pytest.raises(openai.AuthenticationError):
            client.models.list()


async def test_after_a_kill_of_the_edge_every_completed_answer_is_billed_once_and_an_open_one_not_at_all(
    tmp_path: Path, upstream: UpstreamProcess
) -> None:
    """And the Idempotency-Key of an open one is free, that of a completed one is finished."""
    open_key, finished_key = ({"Idempotency-Key": name} for name in ("left open", "finished"))
    with running_stack(catalog(upstream.url), tmp_path) as stack:
        customer = new_customer(stack)
        async with customer.async_client() as client:
            chat = client.chat.completions
            whole = await chat.create(model=MODEL, messages=words(), max_tokens=5, extra_headers=finished_key)
            assert whole.usage is not None
            upstream.script(Answer(events=1_000, gap_ms=50, obey_max_tokens=False))
            stream = await chat.create(
                model=MODEL, messages=words(), max_tokens=50, stream=True, extra_headers=open_key
            )
            await anext(aiter(stream))
            # Of these some are in the ledger when usage_svc falls silent, some on their way, some not yet sent; of the
            # next ones none can be: they are on the edge's disk only.
            seen = [whole.usage.model_dump(), *await ask_in_every_way(customer, 10)]
            stack.kill("usage_svc", signal.SIGSTOP)
            seen += await ask_in_every_way(customer, 20)
            stack.kill("edge")
            with pytest.raises(openai.APIConnectionError):
                [chunk async for chunk in stream]
        stack.kill("usage_svc", signal.SIGCONT)
        assert await asyncio.to_thread(stack.process.wait, STOP_S_MAX) == 1
    with running_stack(None, tmp_path) as stack:
        customer = restarted(customer, stack)
        found = await asyncio.to_thread(customer.settled, 32)
        [lost] = [request for request in found if request.charged_nanousd == 0]
        assert lost.event.outcome == pb.OUTCOME_EDGE_LOST
        await asyncio.to_thread(customer.is_billed, sum(map(cost_nanousd, seen)), requests=32)
        async with customer.async_client() as client:
            chat = client.chat.completions
            with pytest.raises(openai.ConflictError) as caught:
                await chat.create(model=MODEL, messages=words(), max_tokens=5, extra_headers=finished_key)
            assert caught.value.code == "idempotency_finished"
            stream = await chat.create(
                model=MODEL, messages=words(), max_tokens=50, stream=True, extra_headers=open_key
            )
            chunks = [chunk async for chunk in stream]
            assert chunks[-1].usage is not None
        seen += [chunks[-1].usage.model_dump(), *await ask_in_every_way(customer, 5)]
        await asyncio.to_thread(customer.is_billed, sum(map(cost_nanousd, seen)), requests=38)
        first, open_one, *rest = upstream.record().reported
        assert open_one.peer_gone
        assert sum(cost_nanousd(report.usage) for report in (first, *rest)) == sum(map(cost_nanousd, seen))
