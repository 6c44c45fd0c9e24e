"""Paths, methods, headers and what else HTTP itself asks for (docs/http-api.md, "Endpoints")."""

import asyncio
import json

import pytest

from tests.harness.eventually import eventually
from tests.harness.stack import Customer, Stack
from tests.stack.client import CHAT, RESPONSES, Client, chat, responses

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS = {"edge": {"body_timeout_s": 0.3, "body_bytes_max": 9 * 1024 * 1024}}

UNKNOWN_PATHS = [
    "/",
    "/v1",
    "/v1/",
    "/v2/chat/completions",
    "/v1/chat/completions/",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/responses/resp_1",
    "/v1/responses/resp_1/cancel",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/metrics",
    "/V1/models",
]


async def test_chat_completions_and_responses_answer_in_their_own_shapes(client: Client) -> None:
    answer = await client.chat()
    assert (answer.status, answer.json["object"]) == (200, "chat.completion")
    answer = await client.chat(responses(), path=RESPONSES)
    assert (answer.status, answer.json["object"]) == (200, "response")


async def test_liveness_and_readiness_need_no_key(stack: Stack) -> None:
    stranger = Client(stack.edge_url)
    alive, ready = await stranger.ask("GET", "/healthz"), await stranger.ask("GET", "/readyz")
    assert (alive.status, alive.json) == (200, {"status": "ok"})
    assert (ready.status, ready.json) == (200, {"status": "ready", "missing": []})


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_what_is_not_served_is_404_and_says_what_is(stranger: Client, method: str, path: str) -> None:
    answer = await stranger.ask(method, path, b"{}" if method == "POST" else None)
    assert answer.status == 404
    assert (answer.error["type"], answer.error["code"], answer.error["param"]) == ("invalid_request_error", None, None)
    assert path in answer.error["message"]
    assert "/v1/chat/completions" in answer.error["message"]


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (CHAT, "POST, OPTIONS"),
        (RESPONSES, "POST, OPTIONS"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/models/test/model", "GET, HEAD, OPTIONS"),
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/readyz", "GET, HEAD, OPTIONS"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"])
async def test_a_wrong_method_is_405_with_the_right_ones_in_allow(
    stranger: Client, path: str, allow: str, method: str
) -> None:
    if method in allow:
        return
    answer = await stranger.ask(method, path)
    assert answer.status == 405
    assert answer.header("allow") == allow
    if method != "HEAD":
        assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", None)


async def test_head_is_get_without_its_body(client: Client) -> None:
    for path in ("/v1/models", "/v1/models/test/model", "/healthz"):
        got, head = await client.ask("GET", path), await client.ask("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.header("content-length") == str(len(got.body))
        assert head.header("content-type") == "application/json"


async def test_a_websocket_upgrade_of_responses_is_426_and_the_connection_lives_on(client: Client) -> None:
    upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    async with client.connected() as connection:
        await connection.send(client.request("GET", RESPONSES, None, upgrade))
        answer = await connection.whole()
        assert answer.status == 426
        assert "stream: true" in answer.error["message"]
        if answer.header("connection") == "keep-alive":
            await connection.send(client.post(responses(), path=RESPONSES))
            assert (await connection.whole()).status == 200
        else:
            assert await connection.closed()
    assert (await client.ask("GET", RESPONSES)).status == 405


async def test_an_offer_of_http2_is_declined_by_answering(client: Client) -> None:
    offer = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]
    assert (await client.chat(headers=offer)).status == 200


async def test_a_preflight_is_answered_with_the_headers_it_asks_for(stack: Stack) -> None:
    asked = "authorization, content-type, x-stainless-os"
    answer = await Client(stack.edge_url).ask(
        "OPTIONS",
        CHAT,
        None,
        [
            ("Origin", "https://app.example"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", asked),
        ],
    )
    assert (answer.status, answer.body) == (204, b"")
    assert answer.header("access-control-allow-origin") == "*"
    assert answer.header("access-control-allow-headers") == asked
    assert answer.header("access-control-allow-methods") == "POST, OPTIONS"
    assert answer.header("content-length") is None
    assert answer.header("x-request-id")


@pytest.mark.parametrize("body", [chat(), chat(stream=True), {"model": "no/such"}, b"{"], ids=str)
async def test_every_answer_to_a_browser_exposes_what_it_needs(client: Client, body: bytes) -> None:
    answer = await client.chat(body, [("Origin", "https://app.example")])
    exposed = (answer.header("access-control-expose-headers") or "").split(", ")
    assert answer.header("access-control-allow-origin") == "*"
    assert {"x-request-id", "retry-after", "x-ratelimit-remaining-requests", "x-ratelimit-reset-tokens"} <= {*exposed}


async def test_what_is_not_a_browser_gets_no_cors_headers(client: Client) -> None:
    assert (await client.chat()).header("access-control-allow-origin") is None


async def test_a_connection_serves_many_requests(client: Client) -> None:
    async with client.connected() as connection:
        for stream in (False, True, False):
            await connection.send(client.post(chat(stream=stream)))
            answer = await connection.whole()
            assert (answer.status, answer.header("connection")) == (200, "keep-alive")


async def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    async with client.connected() as connection:
        texts = ["one", "one two", "one two three"]
        await connection.send(
            client.post(chat(texts[0]))
            + client.post(chat(texts[1], stream=True))
            + client.request("GET", "/nowhere")
            + client.post(chat(texts[2]))
        )
        first, second, third, fourth = [await connection.whole() for _ in range(4)]
    assert first.json["usage"]["prompt_tokens"] == 1
    assert second.events[-1]["usage"]["prompt_tokens"] == 2
    assert third.status == 404
    assert fourth.json["usage"]["prompt_tokens"] == 3


async def test_connection_close_is_honoured(client: Client) -> None:
    for stream in (False, True):
        async with client.connected() as connection:
            await connection.send(client.post(chat(stream=stream), [("Connection", "close")]))
            answer = await connection.whole()
            assert (answer.status, answer.header("connection")) == (200, "close")
            assert await connection.closed()


async def test_expect_100_continue_is_told_to_go_on(client: Client) -> None:
    async with client.connected() as connection:
        request = client.post(chat(), [("Expect", "100-continue")])
        head, _, body = request.partition(b"\r\n\r\n")
        await connection.send(head + b"\r\n\r\n")
        assert (await connection.head()).status == 100
        await connection.send(body)
        assert (await connection.whole()).status == 200


async def test_any_other_expectation_is_417(client: Client) -> None:
    answer = await client.chat(headers=[("Expect", "a-miracle")])
    assert answer.status == 417
    assert answer.error["type"] == "invalid_request_error"


async def test_chunked_request_bodies_arrive_whole(stack: Stack, client: Client) -> None:
    body = json.dumps(chat("a" * 3000)).encode()
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:2000], body[2000:]))
    async with client.connected() as connection:
        await connection.send(client.request("POST", CHAT, b"", [("Transfer-Encoding", "chunked")]))
        for at in range(0, len(chunks), 1000):
            await connection.send(chunks[at : at + 1000])
        await connection.send(b"0\r\nTrailer: ignored\r\n\r\n")
        assert (await connection.whole()).status == 200
    assert stack.upstream.requests[-1].body == body
    assert stack.upstream.requests[-1].header("content-length") == str(len(body))


async def test_http_1_0_gets_a_whole_answer_and_a_close(client: Client) -> None:
    body = json.dumps(chat()).encode()
    async with client.connected() as connection:
        await connection.send(client.request("POST", CHAT, body, version="1.0"))
        assert (await connection.whole()).json["usage"]["total_tokens"] == 8
        assert await connection.closed()


async def test_a_stream_to_http_1_0_is_ended_by_the_close(client: Client) -> None:
    body = json.dumps(chat(stream=True)).encode()
    async with client.connected() as connection:
        await connection.send(client.request("POST", CHAT, body, version="1.0"))
        answer = await connection.whole()
    assert answer.header("transfer-encoding") is None
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert b"0\r\n\r\n" not in answer.body


async def test_the_target_may_be_a_whole_url(client: Client) -> None:
    """RFC 9112, 3.2.2: a server must accept it."""
    answer = await client.ask("GET", "http://tollgate.test/v1/models")
    assert (answer.status, answer.json["object"]) == (200, "list")


@pytest.mark.parametrize("encoding", ["gzip", "br", "x-unheard-of"])
async def test_a_compressed_request_is_415(client: Client, encoding: str) -> None:
    answer = await client.chat(headers=[("Content-Encoding", encoding)])
    assert answer.status == 415
    assert encoding in answer.error["message"]
    assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", None)


async def test_identity_is_no_encoding(client: Client) -> None:
    assert (await client.chat(headers=[("Content-Encoding", "identity")])).status == 200


async def test_a_body_over_the_limit_is_413_before_it_is_sent(client: Client) -> None:
    async with client.connected() as connection:
        announced = client.request("POST", CHAT, b"", [("Content-Length", str(9 * 1024 * 1024 + 1))])
        await connection.send(announced)
        answer = await connection.whole()
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")
        assert str(9 * 1024 * 1024) in answer.error["message"]
        assert answer.header("connection") == "close"


async def test_a_chunked_body_over_the_limit_is_413_before_it_is_whole(client: Client) -> None:
    megabyte = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    async with client.connected() as connection:
        await connection.send(client.request("POST", CHAT, b"", [("Transfer-Encoding", "chunked")]))
        for _ in range(10):
            await connection.send(megabyte)
        answer = await connection.whole()
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert answer.header("connection") == "close"


async def test_a_body_that_does_not_arrive_in_time_is_408(client: Client) -> None:
    async with client.connected() as connection:
        await connection.send(client.post(chat())[:-1])
        answer = await connection.whole()
        assert answer.status == 408
        assert answer.error["type"] == "invalid_request_error"
        assert answer.header("connection") == "close"


async def test_a_client_that_leaves_within_its_body_is_forgotten(stack: Stack, client: Client) -> None:
    async with client.connected() as connection:
        await connection.send(client.post(chat())[:-1])
    assert (await client.chat()).status == 200
    assert len(stack.upstream.requests) == 1


async def test_a_request_cut_at_every_place_is_understood(client: Client) -> None:
    request = client.post(chat())
    async with client.connected() as connection:
        for at in range(0, len(request), 3):
            await connection.send(request[at : at + 3])
            await asyncio.sleep(0)
        assert (await connection.whole()).status == 200


async def test_every_answer_has_a_request_id_of_its_own(stack: Stack, client: Client, customer: Customer) -> None:
    answers = [await client.chat() for _ in range(2)]
    answers += [await client.chat(chat(stream=True), [("x-request-id", "mine")])]
    ids = [answer.header("x-request-id") for answer in answers]
    assert len({*ids}) == 3
    assert "mine" not in ids
    assert [request.event.request_id for request in await stack.settled(customer, 3)] == ids
    assert [request.header("x-request-id") for request in stack.upstream.requests] == ids


async def test_two_hundred_connections_at_once_are_served(stack: Stack, client: Client, customer: Customer) -> None:
    answers = await asyncio.gather(*(client.chat(chat(max_tokens=1)) for _ in range(200)))
    assert {answer.status for answer in answers} == {200}
    await eventually(lambda: stack.settled(customer, 200))


async def test_each_request_of_a_connection_is_judged_by_its_own_key(stack: Stack, client: Client) -> None:
    poor = await stack.customer(usd=0)
    body = json.dumps(chat()).encode()
    both = [("Authorization", f"Bearer {client.secret}"), ("Authorization", f"Bearer {poor.secret}")]
    presented: list[tuple[list[tuple[str, str]], int]] = [
        (both[:1], 200),
        ([("Authorization", "Bearer tg_nothing")], 401),
        (both[1:], 402),
        (both, 401),
        (both[:1], 200),
        ([("Authorization", "")], 401),
    ]
    async with client.connected() as connection:
        for headers, status in presented:
            await connection.send(client.request("POST", CHAT, body, [("Content-Type", "application/json"), *headers]))
            answer = await connection.whole()
            assert answer.status == status
            if answer.header("connection") == "close":
                break
        else:
            return
    raise AssertionError("the connection was closed before all keys were tried")
