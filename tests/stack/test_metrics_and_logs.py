"""What the edge tells its operator: metrics without ids, one log line per request, never a prompt or a key."""

import json
import re

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.eventually import eventually
from tests.harness.stack import MODEL, Customer, Stack, metric
from tests.harness.upstream_answer import Answer
from tests.stack.client import RESPONSES, Client, chat, responses

pytestmark = pytest.mark.asyncio(loop_scope="session")

ID = re.compile(r"(?:acct|key)_[0-9A-Za-z]{12,}|tg_|[0-9a-f]{8}-[0-9a-f]{4}-")


async def scrape(stack: Stack) -> dict[str, Metric]:
    assert stack.edge is not None
    answer = await Client(f"http://127.0.0.1:{stack.edge.metrics_port}").ask("GET", "/metrics", version="1.0")
    assert answer.status == 200
    return {each.name: each for each in text_string_to_metric_families(answer.body.decode())}


async def test_traffic_is_counted_by_endpoint_model_and_status(stack: Stack, client: Client) -> None:
    model = await stack.offer_new()

    def count(status: int, endpoint: str = "chat_completions", of: str = model) -> float:
        return metric("tollgate_edge_requests_total", endpoint=endpoint, model=of, status=str(status))

    for stream in (False, True):
        assert (await client.chat(chat(model=model, stream=stream))).status == 200
    assert (await client.chat(responses(model=model), path=RESPONSES)).status == 200
    stack.upstream.script(Answer(status=500))
    assert (await client.chat(chat(model=model))).status == 500
    assert (count(200), count(500), count(200, "responses")) == (2, 1, 1)
    assert metric("tollgate_edge_request_duration_seconds_count", endpoint="chat_completions", model=model) == 3
    assert metric("tollgate_edge_time_to_first_byte_seconds_count", endpoint="responses", model=model) == 1
    tokens = {kind: metric("tollgate_edge_tokens_total", model=model, kind=kind) for kind in ("prompt", "completion")}
    assert tokens == {"prompt": 9, "completion": 15}
    assert metric("tollgate_edge_cost_nanousd_total", model=model) == 3 * 13_000
    deployment = f"{model.replace('/', '-')}-0"
    results = {
        result: metric("tollgate_edge_upstream_attempts_total", deployment=deployment, result=result)
        for result in ("ok", "status")
    }
    assert results == {"ok": 3, "status": 1}


async def test_errors_of_the_edge_are_counted_by_their_row(stack: Stack, client: Client) -> None:
    before = metric("tollgate_edge_errors_total", reason="unsupported_parameter")
    assert (await client.chat(chat(best_of=2))).status == 400
    assert metric("tollgate_edge_errors_total", reason="unsupported_parameter") == before + 1


async def test_the_overhead_is_the_edges_own_time(stack: Stack, client: Client) -> None:
    """An upstream that takes 300 ms does not count."""
    name = "tollgate_edge_overhead_seconds_sum"
    for path, body in (("chat_completions", chat()), ("chat_completions", chat(stream=True))):
        stack.upstream.script(Answer(headers_delay_ms=200, gap_ms=20))
        before = metric(name, endpoint=path)
        assert (await client.chat(body)).status == 200
        assert metric(name, endpoint=path) - before < 0.1


async def test_open_streams_are_a_gauge_that_comes_back_to_zero(stack: Stack, client: Client) -> None:
    stack.upstream.script(Answer(gap_ms=50))
    async with client.connected() as connection:
        await connection.send(client.post(chat(stream=True)))
        await connection.head()
        assert metric("tollgate_edge_open_streams") == 1
        async for _ in connection.pieces():
            pass
    await eventually(lambda: metric("tollgate_edge_open_streams") == 0)


async def test_every_metric_has_help_and_no_label_holds_an_id(stack: Stack, client: Client, customer: Customer) -> None:
    assert (await client.chat()).status == 200
    assert (await client.chat({**chat(), "model": f"made-up/{customer.account_id}"})).status == 400
    await client.ask("GET", f"/v1/models/{customer.account_id}")
    await client.ask("GET", f"/{customer.account_id}")
    families = await scrape(stack)
    assert {name for name in families if name.startswith("tollgate_edge_")}
    for name, family in families.items():
        assert family.documentation, name
        for sample in family.samples:
            assert not any(label == "id" or label.endswith("_id") for label in sample.labels), sample
            assert not any(ID.search(value) or "made-up" in value for value in sample.labels.values()), sample


async def test_ages_and_sizes_are_told(stack: Stack, client: Client) -> None:
    assert (await client.chat()).status == 200
    families = await scrape(stack)

    def value(name: str) -> float:
        [sample] = families[name].samples
        return float(sample.value)

    assert 0 <= value("tollgate_edge_catalog_age_seconds") < 10
    assert 0 <= value("tollgate_edge_key_cache_age_seconds") < 10
    assert value("tollgate_edge_key_cache_entries") >= 1
    assert value("tollgate_edge_catalog_number") >= 1


async def test_metrics_are_not_on_the_public_port(client: Client) -> None:
    assert (await client.ask("GET", "/metrics")).status == 404


async def test_one_line_per_request_and_never_a_prompt_or_a_key(
    stack: Stack, customer: Customer, client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    stack.upstream.script(*[Answer(text="a very secret completion")] * 2)
    ids = []
    for stream in (False, True):
        answer = await client.chat(chat("a very secret prompt", stream=stream, user="a secret user"))
        ids.append(answer.header("x-request-id"))
    refused = await client.chat(chat("a very secret prompt", best_of=2))
    ids.append(refused.header("x-request-id"))
    text = ""

    def written() -> bool:
        nonlocal text
        text += capfd.readouterr().err
        return all(str(each) in text for each in ids)

    await eventually(written)
    assert "secret" not in text
    assert customer.secret not in text
    lines = [json.loads(line) for line in text.splitlines() if '"event":"request"' in line]
    mine = [line for line in lines if line.get("account_id") == customer.account_id]
    by_id = {line["request_id"]: line for line in mine}
    assert [line["request_id"] for line in mine] == ids
    first = by_id[ids[0]]
    assert (first["status"], first["endpoint"], first["model"]) == (200, "chat_completions", MODEL)
    assert (first["account_id"], first["prompt_tokens"], first["completion_tokens"]) == (customer.account_id, 4, 5)
    assert first["charge_nanousd"] == 4 * 1000 + 5 * 2000
    assert customer.secret.startswith(first["key"])
    assert by_id[ids[2]]["error"] == "unsupported_parameter"
