"""Byte for byte, both ways, but for the listed exceptions (docs/http-api.md, "Verbatim")."""

import json
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edge.upstream import upstreams
from tests.harness.eventually import eventually
from tests.harness.stack import MODEL, Customer, Stack
from tests.harness.upstream_answer import MODES, Answer, answer_from_options
from tests.stack.client import CHAT, RESPONSES, Client, chat, responses

pytestmark = pytest.mark.asyncio(loop_scope="session")

ODD_BODIES = {
    "spaces": b' {"model" : "test/model" ,\t"messages":[ ] }\r\n ',
    "numbers": b'{"model":"test/model","messages":[],"temperature":1e-7,"top_p":1.0,"seed":1234567890123456789012345}',
    "order": b'{"z":1,"stream":false,"a":2,"messages":[],"model":"test/model","b":{"y":1,"x":2}}',
    "escapes": b'{"model":"test\\/model","messages":[{"role":"user","content":"\\u0041\\/\\ud83d\\ude00\\n\\u00e9"}]}',
    "unknown members": b'{"model":"test/model","messages":[],"from_the_future":{"x":[null,true,-0,0.10,1E5]},"":0}',
    "unicode": '{"model":"test/model","messages":[{"role":"user","content":"é世界🎉\u2028\u2029"}]}'.encode(),
    "escaped name": b'{"mod\\u0065l":"test/model","messages":[]}',
    "unknown member twice": b'{"model":"test/model","messages":[],"x":1,"x":2}',
}
STREAM_MODES = ["ok", "crlf", "cr", "comments", "bom", "multiline", "tight", "byte_by_byte", "split_multibyte"]
STREAM_MODES += ["tricky_content", "azure", "llamacpp", "usage_cumulative", "close_body", "length_body"]


@pytest.fixture(scope="module", autouse=True)
def _credentials_are_read_again_soon() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upstreams, "CREDENTIAL_REFRESH_S", 0.2)
        yield


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES.keys())
async def test_a_request_reaches_the_upstream_byte_for_byte(stack: Stack, client: Client, body: bytes) -> None:
    assert (await client.chat(body)).status == 200
    assert stack.upstream.requests[-1].body == body
    body = body.replace(b'"messages":[', b'"input":[')
    assert (await client.chat(body, path=RESPONSES)).status == 200
    assert stack.upstream.requests[-1].body == body


async def test_a_deployments_own_name_replaces_the_model_and_nothing_else(stack: Stack, client: Client) -> None:
    await stack.offer(MODEL, [{"upstream_model": 'vendor/"own"-1'}])
    body = b' {"x":1e-7,  "model" :  "test\\/model" , "messages": [ ],"y":"test/model" }'
    answer = await client.chat(body)
    assert stack.upstream.requests[-1].body == body.replace(b'"test\\/model"', b'"vendor/\\"own\\"-1"')
    assert answer.json["model"] == 'vendor/"own"-1'
    await stack.offer()


async def test_streamed_chat_asks_for_usage_and_changes_nothing_else(stack: Stack, client: Client) -> None:
    body = b'{ "stream":true, "model":"test/model","messages":[ ],"temperature":1e-7 }'
    await client.chat(body)
    sent = stack.upstream.requests[-1].body
    assert re.sub(rb',\s*"stream_options":\{"include_usage":true\}', b"", sent) == body
    assert json.loads(sent)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_what_asks_for_usage_itself_or_needs_none_is_left_alone(stack: Stack, client: Client, path: str) -> None:
    body: Any = chat(stream=True, stream_options={"include_usage": True, "x": 1}) if path == CHAT else None
    request = json.dumps(body or responses(stream=True)).encode()
    await client.chat(request, path=path)
    assert stack.upstream.requests[-1].body == request


async def test_an_eight_megabyte_request_arrives(stack: Stack, client: Client, customer: Customer) -> None:
    await stack.grant(customer.account_id, 20)
    words = {**chat("x" * 8_000_000), "max_tokens": 1}
    await stack.offer("test/large", context_length=20_000_000)
    words["model"] = "test/large"
    body = json.dumps(words).encode()
    assert (await client.chat(body)).status == 200
    assert stack.upstream.requests[-1].body == body
    await stack.withdraw("test/large")


@pytest.mark.parametrize("mode", STREAM_MODES)
async def test_a_stream_that_asks_for_usage_comes_back_byte_for_byte(stack: Stack, client: Client, mode: str) -> None:
    """What the upstream sends is seen by asking it without a gateway."""
    body = json.dumps(chat(stream=True, stream_options={"include_usage": True})).encode()
    for path, request in ((CHAT, body), (RESPONSES, json.dumps(responses(stream=True)).encode())):
        stack.upstream.reset()
        stack.upstream.script(*[answer_from_options({"mode": mode})] * 2)
        direct = await Client(stack.upstream.url).chat(request, path=path)
        through = await client.chat(request, path=path)
        number = stack.upstream.reported[-1].answer_id
        assert through.body == direct.body.replace(stack.upstream.reported[0].answer_id.encode(), number.encode())
        assert through.header("content-type") == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize(
    "body", [b'{ "usage" : {"prompt_tokens":1,"completion_tokens":1e0 } ,"x":1e-7}\n', b"[1, 2]", b""]
)
async def test_a_whole_answer_comes_back_byte_for_byte(stack: Stack, client: Client, body: bytes) -> None:
    stack.upstream.script(Answer(body=body))
    assert (await client.chat()).body == body


async def test_a_one_megabyte_event_passes(stack: Stack, client: Client) -> None:
    stack.upstream.script(answer_from_options({"mode": "big_event"}))
    answer = await client.chat(chat(stream=True))
    assert len(answer.events[1]["choices"][0]["delta"]["content"]) == 1 << 20
    assert answer.events[-1]["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_what_an_upstream_compresses_unasked_arrives_plain_and_is_billed(
    stack: Stack, client: Client, customer: Customer, coding: str
) -> None:
    stack.upstream.script(*[Answer(compress=coding)] * 2)
    whole = await client.chat(headers=[("Accept-Encoding", "gzip, br, zstd")])
    stream = await client.chat(chat(stream=True), [("Accept-Encoding", "gzip, br, zstd")])
    assert whole.json["usage"] == stream.events[-1]["usage"]
    assert whole.header("content-encoding") is stream.header("content-encoding") is None
    assert stack.upstream.requests[-1].header("accept-encoding") == "identity"
    requests = await stack.settled(customer, 2)
    assert [each.charged_nanousd for each in requests] == [13_000, 13_000]


async def test_an_encoding_that_cannot_be_read_is_502(stack: Stack, client: Client, customer: Customer) -> None:
    for stream in (False, True):
        stack.upstream.script(Answer(headers=(("Content-Encoding", "compress"),)))
        answer = await client.chat(chat(stream=stream))
        assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert {each.charged_nanousd for each in await stack.settled(customer, 2)} == {0}


# ---- headers ----


async def test_only_harmless_request_headers_travel(stack: Stack, client: Client) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await client.chat(
        headers=[
            ("Accept", "text/x"),
            ("traceparent", traceparent),
            ("OpenAI-Beta", "x=1"),
            ("Cookie", "a=b"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("OpenAI-Organization", "org"),
            ("X-Api-Key", "secret"),
            ("Proxy-Authorization", "Basic x"),
            ("Keep-Alive", "timeout=5"),
        ]
    )
    request = stack.upstream.requests[-1]
    assert {name.lower() for name, _ in request.headers} == {
        "host",
        "accept-encoding",
        "user-agent",
        "x-request-id",
        "content-type",
        "accept",
        "traceparent",
        "openai-beta",
        "content-length",
    }
    assert request.header("traceparent") == traceparent
    assert request.header("host") == stack.upstream.url.removeprefix("http://")


async def test_only_harmless_answer_headers_travel(stack: Stack, client: Client) -> None:
    for stream in (False, True):
        stack.upstream.script(Answer(headers=(*MODES["odd_headers"]["headers"], ("openai-processing-ms", "12"))))
        answer = await client.chat(chat(stream=stream))
        names = {name.lower() for name, _ in answer.headers}
        framing = {"transfer-encoding", "cache-control", "x-accel-buffering"} if stream else {"content-length"}
        assert names == {"content-type", "x-request-id", "connection", "openai-processing-ms"} | framing


async def test_the_customers_key_never_reaches_the_upstream(stack: Stack, client: Client, customer: Customer) -> None:
    await client.chat()
    await client.chat(chat(stream=True))
    for request in stack.upstream.requests:
        assert request.header("authorization") is None
        assert customer.secret not in repr(request.headers)


async def test_the_deployments_credential_comes_from_the_environment(
    stack: Stack, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_UPSTREAM", "sk-upstream")
    await stack.offer("test/env", [{"credential": {"env": "A_SECRET_OF_THE_UPSTREAM"}}])
    await client.chat({**chat(), "model": "test/env"})
    assert stack.upstream.requests[-1].header("authorization") == "Bearer sk-upstream"
    await stack.withdraw("test/env")


async def test_a_credential_in_a_file_may_be_rotated(stack: Stack, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first\n")
    await stack.offer("test/file", [{"credential": {"file": str(file)}}])

    async def sent() -> str | None:
        await client.chat({**chat(), "model": "test/file"})
        return stack.upstream.requests[-1].header("authorization")

    assert await sent() == "Bearer first"
    file.write_text("second\n")

    async def rotated() -> bool:
        return await sent() == "Bearer second"

    await eventually(rotated)
    await stack.withdraw("test/file")


async def test_a_deployment_whose_credential_is_missing_is_not_offered(stack: Stack, client: Client) -> None:
    await stack.offer("test/locked", [{"credential": {"env": "NOBODY_SET_THIS"}}])
    listed = await client.ask("GET", "/v1/models")
    assert [model["id"] for model in listed.json["data"]] == [MODEL]
    assert (await client.chat({**chat(), "model": "test/locked"})).status == 503
    await stack.withdraw("test/locked")


# ---- time ----


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_each_event_arrives_before_the_next_one_is_sent(stack: Stack, client: Client, path: str) -> None:
    stack.upstream.script(Answer(gap_ms=60, events=4))
    body = chat(stream=True) if path == CHAT else responses(stream=True)
    arrivals = []
    async with client.connected() as connection:
        await connection.send(client.post(body, path=path))
        assert (await connection.head()).status == 200
        async for piece in connection.pieces():
            if b"data: {" in piece:
                arrivals.append(time.monotonic())
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert sum(gap > 0.03 for gap in gaps) >= 4, gaps
