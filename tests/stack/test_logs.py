"""Captured inputs and outputs over HTTP: off unless switched on, each direction by itself, never in a bill's way."""

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from edge.logs.capture import Capture
from protos.usage.v1 import usage_pb2
from tests.harness.eventually import eventually
from tests.harness.stack import INFERENCE, MANAGEMENT, Customer, Json, Stack, metric, new_id
from tests.harness.upstream_answer import Answer, Ending
from tests.stack.client import CHAT, RESPONSES, Client, Response, chat, responses
from tests.stack.conftest import OpenStack

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOG_BYTES_MAX = 20_000
SETTINGS: dict[str, Json] = {
    "usage": {"log_sweep_interval_s": 0.1},
    "edge": {"log_body_bytes_max": LOG_BYTES_MAX},
}
WORDS = "words that only this question has"
BOTH = pytest.mark.parametrize("path", [CHAT, RESPONSES])


@pytest_asyncio.fixture(loop_scope="session")
async def owner(stack: Stack) -> Customer:
    """An account with 5 USD and a key that manages."""
    return await stack.customer(scopes=[MANAGEMENT])


@pytest.fixture
def manage(stack: Stack, owner: Customer) -> Client:
    return Client(stack.edge_url, owner.secret)


async def key(stack: Stack, owner: Customer, *, inputs: bool = False, outputs: bool = False, days: int = 3) -> Client:
    made = await stack.create_key(
        owner.account_id, scopes=[INFERENCE], log_inputs=inputs, log_outputs=outputs, log_retention_days=days
    )
    return Client(stack.edge_url, made.secret)


async def logs(manage: Client, query: str = "") -> Json:
    answer = await manage.ask("GET", f"/v1/logs{query}")
    assert answer.status == 200, answer.body
    found: Json = answer.json
    return found


async def log_of(manage: Client, answered: Response) -> Json:
    """The log of a request, once it is kept."""

    async def kept() -> list[Json]:
        answer = await manage.ask("GET", f"/v1/logs/{answered.header('x-request-id')}")
        assert answer.status == 200, answer.body
        return [answer.json]

    return (await eventually(kept, 10))[0]


def has(path: Path, words: str) -> bool:
    """Whether a file has words in it; one that is gone by now has not."""
    try:
        return path.is_file() and words.encode() in path.read_bytes()
    except FileNotFoundError:
        return False


def question(path: str, text: str, **members: Any) -> Json:
    return chat(text, **members) if path == CHAT else responses(text, **members)


async def test_nothing_is_kept_of_a_key_that_does_not_log(
    stack: Stack, owner: Customer, manage: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures: list[Capture] = []

    def captured(*given: Any) -> Capture:
        captures.append(Capture(*given))
        return captures[-1]

    monkeypatch.setattr("edge.logs.keeper.Capture", captured)
    silent = await key(stack, owner)
    for stream in (False, True):
        await silent.chat(chat(WORDS, stream=stream))
        await silent.chat(responses(WORDS, stream=stream), path=RESPONSES)
    await stack.settled(owner, 4)
    assert captures == []
    assert (await logs(manage))["data"] == []
    for folder in (stack.folder / "edge" / "logs", stack.folder):
        for path in folder.glob("*"):
            assert not has(path, WORDS)


@BOTH
async def test_each_direction_is_kept_by_itself(stack: Stack, owner: Customer, manage: Client, path: str) -> None:
    for inputs, outputs in ((True, False), (False, True), (True, True)):
        client = await key(stack, owner, inputs=inputs, outputs=outputs)
        body = json.dumps(question(path, WORDS), indent=1).encode()
        answered = await client.chat(body, path=path)
        log = await log_of(manage, answered)
        whole = {"encoding": "utf-8", "truncated": False}
        assert log["input"] == ({"content": body.decode(), **whole} if inputs else None)
        assert log["output"] == ({"content": answered.body.decode(), **whole} if outputs else None)
        assert log["output_raw"] is None
        assert (log["has_input"], log["has_output"], log["has_output_raw"]) == (inputs, outputs, False)
        assert (log["input_bytes"], log["output_bytes"]) == (len(body), len(answered.body))
        assert (log["status"], log["streamed"], log["endpoint"], log["model"]) == (200, False, path, "test/model")
        assert abs(log["expires_at"] - log["created_at"] - 3 * 86_400) <= 1
        assert abs(log["created_at"] - time.time()) < 60
        listed = (await logs(manage))["data"][0]
        assert listed == {name: value for name, value in log.items() if name not in ("input", "output", "output_raw")}


@BOTH
async def test_a_stream_is_kept_assembled_and_raw(stack: Stack, owner: Customer, manage: Client, path: str) -> None:
    client = await key(stack, owner, inputs=True, outputs=True)
    stack.upstream.script(Answer(text="Grüße, one and two", events=4))
    more = {"stream_options": {"include_usage": True}} if path == CHAT else {}
    answered = await client.chat(question(path, WORDS, stream=True, **more), path=path)
    log = await log_of(manage, answered)
    assert log["output_raw"] == {"content": answered.body.decode(), "encoding": "utf-8", "truncated": False}
    assert log["streamed"] is True
    assert log["output"]["truncated"] is False
    output = json.loads(log["output"]["content"])
    if path == CHAT:
        assert output["object"] == "chat.completion"
        [choice] = output["choices"]
        assert choice["message"] == {"role": "assistant", "content": "Grüße, one and two"}
        assert choice["finish_reason"] == "stop"
        assert output["usage"]["completion_tokens"] == 4
    else:
        assert output["status"] == "completed"
        assert "Grüße, one and two" in log["output"]["content"]


async def test_an_error_and_a_stream_that_breaks_off_are_kept_as_the_client_saw_them(
    stack: Stack, owner: Customer, manage: Client
) -> None:
    client = await key(stack, owner, outputs=True)
    stack.upstream.script(Answer(status=422))
    refused = await client.chat()
    log = await log_of(manage, refused)
    assert (log["status"], log["output"]["content"]) == (422, refused.body.decode())
    stack.upstream.script(Answer(ending=Ending.CLOSE, events=6, ending_after=3))
    broken = await client.chat(chat(stream=True))
    log = await log_of(manage, broken)
    assert log["output_raw"]["content"] == broken.body.decode()
    output = json.loads(log["output"]["content"])
    assert output["error"]["code"]
    assert output["choices"][0]["message"]["content"]
    model = await stack.offer_new([{"base_url": "http://127.0.0.1:9/v1"}])
    nobody = await client.chat(chat(model=model))
    log = await log_of(manage, nobody)
    assert (log["status"], log["output"]["content"]) == (503, nobody.body.decode())


@BOTH
async def test_what_is_too_large_is_cut_and_marked(stack: Stack, owner: Customer, manage: Client, path: str) -> None:
    client = await key(stack, owner, inputs=True, outputs=True)
    stack.upstream.script(Answer(text="é" * 40_000, events=1), Answer(text="é" * 4000, events=400))
    body = json.dumps(question(path, "ß" * 30_000), ensure_ascii=False).encode()
    whole = await client.chat(body, path=path)
    log = await log_of(manage, whole)
    for name, sent in (("input", body), ("output", whole.body)):
        assert log[name]["truncated"] is True
        assert log[name]["encoding"] == "utf-8"
        content = log[name]["content"].encode()
        assert LOG_BYTES_MAX - 1 <= len(content) <= LOG_BYTES_MAX
        assert sent.startswith(content)
        assert log[f"{name}_bytes"] == len(sent)
    streamed = await client.chat(question(path, WORDS, stream=True), path=path)
    assert len(streamed.body) > 3 * LOG_BYTES_MAX
    log = await log_of(manage, streamed)
    assert log["output_raw"]["truncated"] is True
    assert streamed.body.startswith(log["output_raw"]["content"].encode())
    assert "é" * 4000 in log["output"]["content"], "the texts are much less than their events, and fit"
    assert log["output"]["truncated"] is False


async def test_what_looks_like_markup_comes_back_as_data(stack: Stack, owner: Customer, manage: Client) -> None:
    client = await key(stack, owner, inputs=True, outputs=True)
    attack = '</script><script>alert(1)</script><img src=x onerror="alert(1)">\u2028{{7*7}}'
    stack.upstream.script(Answer(text=attack, events=3))
    answered = await client.chat(chat(attack, stream=True))
    log = await log_of(manage, answered)
    shown = await manage.ask("GET", f"/v1/logs/{answered.header('x-request-id')}")
    assert shown.header("content-type") == "application/json"
    assert json.loads(log["input"]["content"])["messages"][0]["content"] == attack
    assert json.loads(log["output"]["content"])["choices"][0]["message"]["content"] == attack


async def test_bytes_that_are_no_text_come_as_base64(stack: Stack, owner: Customer, manage: Client) -> None:
    client = await key(stack, owner, outputs=True)
    stack.upstream.script(Answer(status=500, body=b"\xff\xfe\x00", content_type="application/octet-stream"))
    log = await log_of(manage, await client.chat())
    assert log["output"] == {"content": "//4A", "encoding": "base64", "truncated": False}


async def test_logs_are_listed_by_page_model_key_and_time(stack: Stack, owner: Customer, manage: Client) -> None:
    one, two = await key(stack, owner, inputs=True), await key(stack, owner, outputs=True)
    model = await stack.offer_new()
    answered = [await one.chat(), await two.chat(), await one.chat(chat(model=model))]
    for each in answered:
        await log_of(manage, each)
    ids = [each.header("x-request-id") for each in reversed(answered)]
    whole = await logs(manage)
    assert [each["id"] for each in whole["data"]] == ids
    assert (whole["object"], whole["has_more"], whole["first_id"], whole["last_id"]) == ("list", False, ids[0], ids[-1])
    first = await logs(manage, "?limit=2")
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (ids[:2], True)
    rest = await logs(manage, f"?limit=2&after={first['last_id']}")
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (ids[2:], False)
    assert [each["id"] for each in (await logs(manage, f"?model={model}"))["data"]] == ids[:1]
    key_id = whole["data"][1]["key_id"]
    assert [each["id"] for each in (await logs(manage, f"?key={key_id}"))["data"]] == ids[1:2]
    assert (await logs(manage, f"?to={int(time.time()) - 3600}"))["data"] == []
    assert len((await logs(manage, f"?from={int(time.time()) - 3600}"))["data"]) == 3


async def test_a_page_goes_on_behind_a_log_that_was_deleted_meanwhile(
    stack: Stack, owner: Customer, manage: Client
) -> None:
    client = await key(stack, owner, inputs=True, outputs=True)
    answered = [await client.chat(chat(stream=number % 2 == 0)) for number in range(4)]
    for each in answered:
        await log_of(manage, each)
    ids = [each.header("x-request-id") for each in reversed(answered)]
    await stack.settled(owner, 4)
    kept = await stack.call(stack.usage_logs.ListLogs, usage_pb2.ListLogsRequest(account_id=owner.account_id))
    finished = {each.event.request_id: each.event for each in await stack.requests(owner.account_id)}
    for log in kept.logs:
        event = finished[log.request_id]
        assert abs(log.end_time.ToMicroseconds() - event.end_time.ToMicroseconds()) <= 1, "one end, in both listings"
    page = await logs(manage, "?limit=2")
    assert [each["id"] for each in page["data"]] == ids[:2]
    for each in page["data"]:
        assert (await manage.ask("DELETE", f"/v1/logs/{each['id']}")).status == 200
    rest = await logs(manage, f"?limit=2&after={page['last_id']}")
    assert [each["id"] for each in rest["data"]] == ids[2:]
    stranger = await stack.customer(scopes=[MANAGEMENT])
    for after in (ids[0], ids[3]):  # deleted, or not: of another account's nothing is told
        refused = await Client(stack.edge_url, stranger.secret).ask("GET", f"/v1/logs?after={after}")
        assert (refused.status, refused.error["param"]) == (400, "after")


async def test_a_customer_deletes_one_log_or_those_of_a_time(stack: Stack, owner: Customer, manage: Client) -> None:
    client = await key(stack, owner, inputs=True)
    answered = [await client.chat() for _ in range(3)]
    for each in answered:
        await log_of(manage, each)
    path = f"/v1/logs/{answered[0].header('x-request-id')}"
    deleted = await manage.ask("DELETE", path)
    assert deleted.json == {"object": "log.deleted", "id": path.removeprefix("/v1/logs/"), "deleted": True}
    assert [(await manage.ask(method, path)).status for method in ("GET", "DELETE")] == [404, 404]
    assert (await manage.ask("DELETE", f"/v1/logs?to={int(time.time()) - 3600}")).json["deleted"] == 0
    assert (await manage.ask("DELETE", "/v1/logs?from=0")).json == {"object": "logs.deleted", "deleted": 2}
    assert (await logs(manage))["data"] == []
    await log_of(manage, await client.chat())


async def test_logs_belong_to_their_account_alone(stack: Stack, owner: Customer, manage: Client) -> None:
    client = await key(stack, owner, inputs=True)
    answered = await client.chat()
    log = await log_of(manage, answered)
    stranger = Client(stack.edge_url, (await stack.customer(scopes=[MANAGEMENT])).secret)
    path = f"/v1/logs/{log['id']}"
    unknown = await stranger.ask("GET", "/v1/logs/01a20ba1-041a-760f-9625-f1248ee3f35f")
    for method in ("GET", "DELETE"):
        answer = await stranger.ask(method, path)
        assert (answer.status, answer.body) == (404, unknown.body)
    assert (await stranger.ask("DELETE", "/v1/logs?from=0")).json["deleted"] == 0
    assert (await stranger.ask("GET", f"/v1/logs?after={log['id']}")).error["param"] == "after"
    assert (await logs(stranger))["data"] == []
    assert (await manage.ask("GET", path)).status == 200
    for method, target in (("GET", "/v1/logs"), ("GET", path), ("DELETE", path), ("DELETE", "/v1/logs?from=0")):
        assert (await client.ask(method, target)).status == 403, "an inference key cannot manage"
        assert (await Client(stack.edge_url).ask(method, target)).status == 401


@pytest.mark.parametrize(
    ("method", "query", "param"),
    [
        ("GET", "?limit=0", "limit"),
        ("GET", "?limit=101", "limit"),
        ("GET", "?after=", "after"),
        ("GET", "?after=nothing", "after"),
        ("GET", "?from=yesterday", "from"),
        ("GET", "?from=200&to=100", "to"),
        ("GET", "?page=2", "page"),
        ("GET", "?model=a&model=b", "model"),
        ("DELETE", "", "from"),
        ("DELETE", "?all=true", "all"),
        ("DELETE", "?from=200&to=100", "to"),
        ("DELETE", "?to=never", "to"),
    ],
)
async def test_a_query_that_cannot_be_is_refused_by_name(manage: Client, method: str, query: str, param: str) -> None:
    answer = await manage.ask(method, f"/v1/logs{query}")
    assert answer.status == 400
    assert answer.error["param"] == param


@pytest.mark.parametrize("log_id", ["nothing", "%00", "a" * 101, "..%2f..", "%F0%9F%98%80"])
async def test_an_id_that_cannot_be_is_not_found(manage: Client, log_id: str) -> None:
    for method in ("GET", "DELETE"):
        assert (await manage.ask(method, f"/v1/logs/{log_id}")).status == 404


def _expire(database: Path, request_id: str) -> None:
    """Makes it three days later, for one log."""
    connection = sqlite3.connect(database, timeout=30)
    with connection:
        connection.execute("UPDATE request_log SET expire_time_us = 1 WHERE request_id = ?", (request_id,))
    connection.close()


async def test_an_expired_log_leaves_no_trace_in_any_file(stack: Stack, owner: Customer, manage: Client) -> None:
    client = await key(stack, owner, inputs=True, outputs=True)
    words = f"{WORDS} {new_id()}"
    stack.upstream.script(Answer(text=words, events=3))
    log = await log_of(manage, await client.chat(chat(words, stream=True)))
    database = stack.folder / "usage.db"
    await eventually(lambda: any(has(path, words) for path in stack.folder.glob("usage.db*")))
    # In a thread: a writer that holds the lock may need this thread's event loop to let it go.
    await asyncio.to_thread(_expire, database, log["id"])

    def traces() -> list[str]:
        return [str(path) for path in stack.folder.rglob("*") if has(path, words)]

    async def gone() -> None:
        assert traces() == []

    await eventually(gone, 20)
    assert (await manage.ask("GET", f"/v1/logs/{log['id']}")).status == 404


async def test_switching_a_key_off_keeps_no_more(stack: Stack, owner: Customer, manage: Client) -> None:
    made = await manage.ask("POST", "/v1/keys", json.dumps({"name": "logs", "log_inputs": True}).encode())
    client = Client(stack.edge_url, made.json["secret"])
    await log_of(manage, await client.chat())
    await manage.ask("PATCH", f"/v1/keys/{made.json['id']}", b'{"log_inputs": false}')

    async def is_off() -> bool:
        before = metric("tollgate_edge_logs_total", outcome="sent")
        await client.chat()
        await stack.call(stack.usage_logs.ListLogs, _list(owner))
        return metric("tollgate_edge_logs_total", outcome="sent") == before

    await eventually(is_off, 10)


def _list(owner: Customer) -> Any:
    return usage_pb2.ListLogsRequest(account_id=owner.account_id)


async def test_a_full_log_spool_drops_logs_and_no_bill(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"log_spool_bytes_max": 30_000, "log_body_bytes_max": 10_000})
    customer = await stack.customer(log_inputs=True, log_outputs=True, scopes=[INFERENCE, MANAGEMENT])
    client = Client(stack.edge_url, customer.secret)
    await client.chat()
    await stack.settled(customer, 1)
    await stack.stop("usage")
    dropped = metric("tollgate_edge_logs_total", outcome="spool_full")
    answers = [await client.chat(chat("x" * 8000)) for _ in range(6)]
    assert {answer.status for answer in answers} == {200}
    await eventually(lambda: metric("tollgate_edge_logs_total", outcome="spool_full") > dropped, 10)
    assert sum(path.stat().st_size for path in (stack.folder / "edge" / "logs").glob("*")) <= 30_000
    await stack.start("usage")
    recorded = await stack.settled(customer, 7, 20)
    assert all(each.charged_nanousd > 0 for each in recorded)
    await stack.audit()

    async def sent() -> None:
        kept = (await logs(client))["data"]
        assert 3 <= len(kept) < 7
        assert not list((stack.folder / "edge" / "logs").glob("*"))

    await eventually(sent, 20)


async def test_logs_wait_for_usage_svc_and_survive_a_restart_of_the_edge(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    customer = await stack.customer(log_inputs=True, scopes=[INFERENCE, MANAGEMENT])
    client = Client(stack.edge_url, customer.secret)
    await client.chat()
    await stack.settled(customer, 1)
    await stack.stop("usage")
    asked = await asyncio.gather(*(client.chat(chat(f"{WORDS} {number}")) for number in range(3)))
    assert {answer.status for answer in asked} == {200}
    await stack.restart("edge")
    await stack.start("usage")
    client = Client(stack.edge_url, customer.secret)

    async def all_are_here() -> None:
        assert len((await logs(client))["data"]) == 4

    await eventually(all_are_here, 20)


async def test_a_log_that_is_deleted_before_it_came_never_comes(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    customer = await stack.customer(log_inputs=True, scopes=[INFERENCE, MANAGEMENT])
    client = Client(stack.edge_url, customer.secret)
    first = await client.chat()
    await log_of(client, first)
    not_kept = metric("tollgate_edge_logs_total", outcome="not_kept")
    await stack.stop("usage")
    gone, stays = await client.chat(), await client.chat()
    await eventually(lambda: any((stack.folder / "edge" / "logs").glob("*")), 10)
    # usage_svc comes back to hear of the deletion first, from another edge.
    await stack.stop("edge")
    await stack.start("usage")
    request = usage_pb2.DeleteLogRequest(account_id=customer.account_id, request_id=gone.header("x-request-id") or "")
    with pytest.raises(Exception, match="no log"):
        await stack.call(stack.usage_logs.DeleteLog, request)
    await stack.start("edge")
    client = Client(stack.edge_url, customer.secret)
    await log_of(client, stays)
    await eventually(lambda: metric("tollgate_edge_logs_total", outcome="not_kept") == not_kept + 1, 10)
    assert (await client.ask("GET", f"/v1/logs/{gone.header('x-request-id')}")).status == 404
