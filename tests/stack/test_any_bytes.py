"""Whatever bytes come: nothing crashes, every answer has the documented shape, and only what was generated is billed.

The cases are random and the same on every run; a failure names its number and shows its bytes.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from edge.http import protocol
from tests.harness.eventually import eventually
from tests.harness.stack import MODEL, Customer, Stack
from tests.stack.client import CHAT, RESPONSES, Client, chat, responses

pytestmark = pytest.mark.asyncio(loop_scope="session")

# What is cut short is answered soon, and nobody is slowed for his broken keys.
SETTINGS = {"edge": {"body_timeout_s": 0.2, "header_timeout_s": 0.2, "keep_alive_s": 0.2, "failed_keys_per_minute": 0}}
CASES = 600
AT_ONCE = 16
SEED = 20261128
SILENCE_S = 8.0

_PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b":",
        b" ",
        b"\t",
        b"\xff",
        b"\xc3\x28",
        b"\xef\xbb\xbf",
        b"\r\n\r\n",
        b"%00",
        b"%2F",
    ),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: -1\r\n", b"Content-Length: 9e9\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"transfer-encoding : chunked\r\n"),
    *(b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"Content-Encoding: gzip\r\n"),
    *(b"Authorization: Bearer tg_x\r\n", b"Host: \r\n", b"Range: bytes=0-1\r\n", b"Idempotency-Key: \xff\r\n"),
    *(
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"5;x=y\r\n",
        b"-5\r\n",
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"\\",
        b"\\u0000",
    ),
    *(b"\\ud800", b"NaN", b"1e999", b"-0", b"null", b"true", b'"model":"x",', b'"n":2,', b'"stream":1,', b"9" * 400),
)
_KEYS = (
    *("model", "messages", "input", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "tools"),
    *("max_output_tokens", "Model", "mod\\u0065l", "STREAM", "priority", "bootstrap_host", "background", "store"),
    *(
        "tool_choice",
        "response_format",
        "text",
        "modalities",
        "prediction",
        "instructions",
        "chat_template_kwargs",
        "x",
    ),
    *(
        "previous_response_id",
        "metadata",
        "logit_bias",
        "stop",
        "usage",
        "\\ud800",
        "",
        "content",
        "image_url",
        "file_id",
    ),
)
_VALUES = (
    *(
        "null",
        "true",
        "false",
        "0",
        "1",
        "-1",
        "2",
        "1.0",
        "1e2",
        "1e999",
        "1E-7",
        "-0",
        "9" * 300,
        "0.1" * 1,
        "[]",
        "{}",
    ),
    *('""', '"1"', '"test"', '"\\ud83d"', '"\\u0000"', '"data: [DONE]"', "NaN", "Infinity", "01", ".5", "'x'", "tru"),
    *('{"include_usage":true}', '{"include_usage":1}', '[{"type":"function"}]', '[{"type":"web_search"}]', '"auto"'),
    *('[{"role":"user","content":"hi"}]', '[{"role":"user","content":[{"type":"text","text":"a"}]}]', '[{"role":7}]'),
    *('[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://10.0.0.1/"}}]}]', "[" * 70 + "]" * 70),
)


def broken_requests(client: Client, cases: random.Random) -> Iterator[bytes]:
    """Requests of every kind, with some of their bytes changed."""
    close = [("Connection", "close")]
    originals = [
        client.post(chat(), close),
        client.post(chat(stream=True), close),
        client.post(responses(), close, RESPONSES),
        client.post(responses(stream=True), close, RESPONSES),
        client.post(chat(), [("Idempotency-Key", "once"), *close]),
        client.request("POST", CHAT, b'5\r\n{"mod\r\n0\r\n\r\n', [("Transfer-Encoding", "chunked"), *close]),
        client.request("GET", "/v1/models", None, close),
        client.request("GET", "/v1/models/a%2Fb?format=openrouter", None, close),
        client.request("PATCH", "/v1/keys/key_1", b"{}", close),
        client.request("GET", "/v1/usage?group_by=day", None, close),
        client.request(
            "OPTIONS", CHAT, None, [("Origin", "https://a.test"), ("Access-Control-Request-Method", "POST")]
        ),
        client.request("GET", "/console", None, close),
    ]
    while True:
        data = bytearray(cases.choice(originals))
        for _ in range(cases.choice((1, 1, 2, 3, 8))):
            at = cases.randrange(len(data) + 1)
            match cases.randrange(6):
                case 0:
                    data[at:at] = cases.choice(_PIECES)
                case 1:
                    data[at : at + cases.randrange(1, 9)] = b""
                case 2:
                    data[at : at + 1] = bytes([cases.randrange(256)])
                case 3:
                    del data[at:]
                case 4:
                    data[at:at] = data[at : at + cases.randrange(1, 80)]
                case 5:  # behind some line of the head
                    line = data.find(b"\r\n", at)
                    data[line + 2 : line + 2] = cases.choice(_PIECES)
        yield bytes(data)


def odd_bodies(cases: random.Random) -> Iterator[tuple[str, bytes]]:
    """Bodies that are JSON, or nearly, of keys and values that decide something."""
    while True:
        path = cases.choice((CHAT, RESPONSES))
        known = {
            "model": json.dumps(MODEL),
            ("messages" if path == CHAT else "input"): '[{"role":"user","content":"hi"}]',
        }
        members = [(name, value) for name, value in known.items() if cases.random() < 0.9]
        members += [(cases.choice(_KEYS), cases.choice(_VALUES)) for _ in range(cases.choice((0, 1, 1, 2, 4)))]
        cases.shuffle(members)
        space = cases.choice(("", " ", "\n\t"))
        text = "{" + ",".join(f'{space}"{name}":{space}{value}' for name, value in members) + "}"
        body = text.encode("utf-8", "surrogatepass")
        if cases.random() < 0.2:
            at = cases.randrange(len(body))
            body = body[:at] + cases.choice(_PIECES) + body[at:]
        yield path, body


def assert_documented(status: int, headers: dict[str, str], body: bytes) -> None:
    assert "x-request-id" in headers
    assert 200 <= status < 600
    assert status != 500, "a bug of ours"
    if status >= 400:
        assert headers["content-type"] == "application/json"
        error = json.loads(body)["error"]
        assert error.keys() >= {"message", "type", "param", "code"}
        assert error["message"]
        assert error["type"] in {"invalid_request_error", "authentication_error", "permission_error", "server_error"}


def answers_in(data: bytes) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """The answers that a connection brought, each whole."""
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, f"half a head: {head!r}"
        status_line, *lines = head.decode("latin-1").split("\r\n")
        assert status_line.startswith("HTTP/1."), status_line
        status = int(status_line.split(" ")[1])
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if status == 100:
            continue
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while True:
                size, _, data = data.partition(b"\r\n")
                piece, data = data[: int(size, 16)], data[int(size, 16) + 2 :]
                body += piece
                if not piece:
                    break
        elif "content-length" in headers:
            length = int(headers["content-length"])
            assert len(data) >= length, "half a body"
            body, data = data[:length], data[length:]
        elif status != 204:
            body, data = data, b""
        yield status, headers, body


async def send(client: Client, data: bytes) -> None:
    """Sends bytes and looks at all that comes until the server closes, which it must."""
    async with client.connected() as connection:
        await connection.send(data)
        async with asyncio.timeout(SILENCE_S):
            try:
                came = await connection.reader.read()
            except ConnectionResetError:  # it closed with bytes of ours unread; what it said may be lost with them
                return
    for answer in answers_in(came):
        assert_documented(*answer)


async def each(cases: Iterator[Any], work: Callable[[Any], Awaitable[None]]) -> None:
    """CASES of them, several at once; a failure says which."""
    numbered = enumerate(cases)

    async def worker() -> None:
        for number, case in numbered:
            if number >= CASES:
                return
            try:
                await work(case)
            except Exception as error:
                raise AssertionError(f"case {number}: {case!r}: {error!r}") from error

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


async def assert_all_is_well(stack: Stack, customer: Customer, client: Client) -> None:
    """The bill is what the upstream reported, to the token, and the edge serves."""
    reported = [report.usage for report in stack.upstream.reported if report.usage]
    assert reported, "some cases must be harmless, else this proves little"
    cost_nanousd = sum(
        usage.get("prompt_tokens", usage.get("input_tokens", 0)) * 1000
        + usage.get("completion_tokens", usage.get("output_tokens", 0)) * 2000
        for usage in reported
    )

    async def charged() -> None:
        balance = await stack.balance(customer.account_id)
        assert balance.charged_nanousd == cost_nanousd, f"{len(reported)} answers"

    await eventually(charged)
    assert (await client.chat()).status == 200
    await stack.audit()


async def test_any_bytes_get_documented_answers_and_cost_what_was_generated(
    stack: Stack, client: Client, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 0.2)
    with capture_logs() as logs:
        await each(broken_requests(client, random.Random(SEED)), lambda data: send(client, data))
    assert [line for line in logs if line["log_level"] in ("error", "critical")] == []
    await assert_all_is_well(stack, customer, client)


async def test_any_body_gets_a_documented_answer_and_costs_what_was_generated(
    stack: Stack, client: Client, customer: Customer
) -> None:
    async def ask(case: tuple[str, bytes]) -> None:
        path, body = case
        answer = await client.chat(body, path=path)
        assert_documented(answer.status, {name.lower(): value for name, value in answer.headers}, answer.body)

    with capture_logs() as logs:
        await each(odd_bodies(random.Random(SEED)), ask)
    assert [line for line in logs if line["log_level"] in ("error", "critical")] == []
    for request in stack.upstream.requests:
        assert isinstance(request.json, dict)
        assert client.secret.encode() not in request.body
        assert client.secret not in str(request.headers)
    await assert_all_is_well(stack, customer, client)
