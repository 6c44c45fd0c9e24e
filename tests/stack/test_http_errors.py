"""What is not HTTP, and what is not a good key or body: always the one shape, and never a bill (docs/errors.md)."""

import asyncio
import json
import time
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from protos.auth.v1 import auth_pb2
from tests.harness.eventually import eventually
from tests.harness.stack import MANAGEMENT, MODEL, Customer, Stack
from tests.stack.client import CHAT, RESPONSES, Client, Response, chat, responses

pytestmark = pytest.mark.asyncio(loop_scope="session")

_POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
NOT_HTTP = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
    "words": b"hello there, is this a server?\r\n\r\n",
    "http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "method": b"FETCH /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "header-without-colon": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n",
    "space-before-colon": b"POST /v1/models HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc",
    "length-and-chunked": _POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two-lengths": _POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "negative-length": _POST + b"Content-Length: -1\r\n\r\n",
    "signed-length": _POST + b"Content-Length: +5\r\n\r\nabcde",
    "endless-length": _POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "chunked-twice": _POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "null-in-header": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-A: a\x00b\r\n\r\n",
}


def assert_error(answer: Response, status: int, kind: str, code: str | None, param: str | None = None) -> None:
    assert answer.status == status, answer.body
    error = answer.error
    assert (error["type"], error["code"], error["param"]) == (kind, code, param), error


async def send(client: Client, data: bytes) -> Response:
    async with client.connected() as connection:
        await connection.send(data)
        return await connection.whole()


@pytest.mark.parametrize("request_bytes", NOT_HTTP.values(), ids=NOT_HTTP.keys())
async def test_what_is_not_http_gets_an_error_of_the_one_shape_and_a_close(
    client: Client, request_bytes: bytes
) -> None:
    async with client.connected() as connection:
        await connection.send(request_bytes)
        answer = await connection.whole()
        assert_error(answer, 400, "invalid_request_error", "invalid_request_error")
        assert answer.header("connection") == "close"
        assert await connection.closed()
    assert (await client.chat()).status == 200


async def test_a_chunked_body_that_is_broken_is_400(client: Client) -> None:
    async with client.connected() as connection:
        await connection.send(client.request("POST", CHAT, b"", [("Transfer-Encoding", "chunked")]))
        await connection.send(b"zz\r\n{}\r\n0\r\n\r\n")
        answer = await connection.whole()
    assert_error(answer, 400, "invalid_request_error", "invalid_request_error")
    assert answer.header("connection") == "close"


async def test_headers_over_the_limits_are_431(client: Client) -> None:
    long = await send(client, client.request("GET", "/v1/models", None, [("X-Long", "a" * 17_000)]))
    many = await send(client, client.request("GET", "/v1/models", None, [(f"X-{n}", "a") for n in range(150)]))
    target = await send(client, client.request("GET", "/v1/models?" + "a" * 17_000))
    for answer in (long, many, target):
        assert_error(answer, 431, "invalid_request_error", None)
        assert answer.header("connection") == "close"


async def test_bytes_that_are_no_text_do_no_harm_anywhere_in_a_head(client: Client) -> None:
    raw = client.request("GET", "/v1/models", None, [("X-Odd", "\udcff\udcfe"), ("Accept", "\udce9")])
    assert (await send(client, raw)).status == 200
    answer = await send(client, client.post(chat(), [("Content-Encoding", "\udcff")]))
    assert_error(answer, 415, "invalid_request_error", None)
    stranger = Client(f"http://127.0.0.1:{client.port}", "\udcff\udcfe")
    assert_error(await stranger.chat(), 401, "authentication_error", "INVALID_API_KEY")
    for target in (b"/v1/\xff", b"/v1/models/\xff\xfe", b"/v1/%ff%00", b"/v1/models/%ff"):
        answer = await send(client, client.request("GET", "/target").replace(b"/target", target))
        assert answer.status in (400, 404)
        assert answer.error["type"] == "invalid_request_error"


# ---- 401 ----


def authorizations(customer: Customer) -> dict[str, list[tuple[str, str]]]:
    good, other = f"Bearer {customer.secret}", customer.secret[:-1] + ("a" if customer.secret[-1] != "a" else "b")
    return {
        "missing": [],
        "empty": [("Authorization", "")],
        "basic": [("Authorization", "Basic dXNlcjpwYXNz")],
        "without scheme": [("Authorization", customer.secret)],
        "without key": [("Authorization", "Bearer")],
        "not ours": [("Authorization", "Bearer sk-proj-1234567890")],
        "a wrong checksum": [("Authorization", f"Bearer {other}")],
        "with something after it": [("Authorization", good + "x")],
        "in two headers": [("Authorization", good), ("Authorization", good)],
        "in another header": [("X-Api-Key", customer.secret)],
        "very long": [("Authorization", "Bearer " + "a" * 10_000)],
    }


async def test_every_kind_of_wrong_key_gets_one_and_the_same_401(stack: Stack, customer: Customer) -> None:
    stranger = Client(stack.edge_url)
    texts = set()
    for kind, headers in authorizations(customer).items():
        answer = await stranger.chat(headers=headers)
        assert answer.status == 401, kind
        assert_error(answer, 401, "authentication_error", "INVALID_API_KEY")
        texts.add(answer.body)
    expire_s = time.time() + 0.2
    expire_time = Timestamp(seconds=int(expire_s), nanos=int(expire_s % 1 * 1e9))
    expired = await stack.create_key(customer.account_id, expire_time=expire_time)
    assert (await Client(stack.edge_url, expired.secret).ask("GET", "/v1/models")).status == 200
    await eventually(lambda: time.time() > expire_s)
    unknown = await stack.create_key(await stack.create_account())
    await stack.revoke(unknown)
    for each in (expired, unknown):
        answer = await Client(stack.edge_url, each.secret).chat()
        assert answer.status == 401
        texts.add(answer.body)
    assert len(texts) == 1
    assert stack.upstream.requests == []


async def test_the_scheme_is_read_in_any_case(stack: Stack, customer: Customer) -> None:
    answer = await Client(stack.edge_url).chat(headers=[("authorization", f"bEaReR {customer.secret}")])
    assert answer.status == 200


# ---- 403 ----


async def test_a_key_for_management_only_may_not_generate(stack: Stack) -> None:
    manager = await stack.customer(scopes=[MANAGEMENT])
    for path, body in ((CHAT, chat()), (RESPONSES, responses())):
        answer = await Client(stack.edge_url, manager.secret).chat(body, path=path)
        assert_error(answer, 403, "permission_error", "PERMISSION_DENIED")
        assert "inference" in answer.error["message"]


async def test_a_suspended_account_gets_403_and_serves_again_when_active(stack: Stack) -> None:
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    assert (await client.chat()).status == 200

    async def status_is(status: int) -> bool:
        return (await client.chat()).status == status

    await stack.set_state(customer.account_id, auth_pb2.ACCOUNT_STATE_SUSPENDED)
    await eventually(lambda: status_is(403), 1.0)
    answer = await client.chat()
    assert_error(answer, 403, "permission_error", "PERMISSION_DENIED")
    assert "suspended" in answer.error["message"]
    assert (await client.ask("GET", "/v1/models")).status == 403
    await stack.set_state(customer.account_id, auth_pb2.ACCOUNT_STATE_ACTIVE)
    await eventually(lambda: status_is(200), 1.0)


# ---- 400 ----

BAD_BODIES: dict[str, Any] = {
    "empty": b"",
    "spaces": b"   ",
    "cut off": b'{"model": "test/model", "messages": [',
    "two values": b"{} {}",
    "array": b"[]",
    "string": b'"test/model"',
    "null": b"null",
    "comment": b'{"model": "test/model" /* hello */}',
    "trailing comma": b'{"model": "test/model",}',
    "single quotes": b"{'model': 'test/model'}",
    "nan": b'{"model": "test/model", "messages": [], "temperature": NaN}',
    "infinity": b'{"model": "test/model", "messages": [], "temperature": Infinity}',
    "hexadecimal": b'{"model": "test/model", "messages": [], "n": 0x1}',
    "invalid utf-8": b'{"model": "test/model", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "overlong utf-8": b'{"model": "test/model", "messages": [{"role": "user", "content": "\xc0\xaf"}]}',
    "surrogate in utf-8": b'{"model": "test/model", "messages": [{"role": "user", "content": "\xed\xa0\x80"}]}',
    "utf-16": '{"model": "test/model", "messages": []}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(chat()).encode(),
    "nested too deep": b'{"model": "test/model", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects too deep": b'{"model": "test/model", "x": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}",
    "no model": {"messages": []},
    "model null": {**chat(), "model": None},
    "model a number": {**chat(), "model": 4},
    "model a list": {**chat(), "model": [MODEL]},
    "model empty": {**chat(), "model": ""},
    "model twice": b'{"model": "test/model", "messages": [], "model": "test/model"}',
    "model escaped and plain": b'{"model": "test/model", "messages": [], "mod\\u0065l": "other"}',
    "model in another case": b'{"model": "test/model", "messages": [], "Model": "other"}',
    "stream a number": chat(stream=1),
    "stream a string": chat(stream="true"),
    "stream twice": b'{"model": "test/model", "messages": [], "stream": true, "stream": false}',
    "stream_options a list": chat(stream=True, stream_options=[]),
    "stream_options a string": chat(stream=True, stream_options="include_usage"),
    "include_usage a number": chat(stream=True, stream_options={"include_usage": 1}),
    "n a string": chat(n="5"),
    "n zero": chat(n=0),
    "n a fraction": chat(n=1.5),
    "n absurd": chat(n=10**30),
    "max_tokens zero": chat(max_tokens=0),
    "max_tokens negative": chat(max_tokens=-1),
    "max_tokens a string": chat(max_tokens="5"),
    "max_tokens a fraction": chat(max_tokens=0.5),
    "max_tokens a boolean": chat(max_tokens=True),
    "max_tokens absurd": chat(max_tokens=10**400),
    "max_completion_tokens negative": chat(max_completion_tokens=-(10**18)),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def untouched(shared_stack: Stack) -> Customer:
    """A customer who never gets anything but refusals."""
    return await shared_stack.customer()


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_a_bad_body_is_400_and_costs_nothing(stack: Stack, untouched: Customer, body: Any) -> None:
    answer = await Client(stack.edge_url, untouched.secret).chat(body)
    assert answer.status == 400, answer.body
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["code"] == "invalid_request_error"
    assert answer.header("retry-after") is None
    assert stack.upstream.requests == []
    assert await stack.requests(untouched.account_id) == []
    assert (await stack.balance(untouched.account_id)).posted_nanousd == 5_000_000_000


async def test_a_missing_model_is_named(client: Client) -> None:
    for body, path in (({"messages": []}, CHAT), ({"input": "hello"}, RESPONSES)):
        assert_error(await client.chat(body, path=path), 400, "invalid_request_error", "invalid_request_error", "model")


async def test_an_unknown_model_is_told_which_ones_there_are(stack: Stack, client: Client) -> None:
    await stack.offer("test/second")
    answer = await client.chat({**chat(), "model": "gpt-5"})
    assert_error(answer, 400, "invalid_request_error", "invalid_request_error", "model")
    assert answer.error["valid_models"] == [MODEL, "test/second"]
    assert MODEL in answer.error["message"]
    assert "gpt-5" in answer.error["message"]
    await stack.withdraw("test/second")


async def test_a_key_with_an_allow_list_is_told_of_no_other_model(stack: Stack) -> None:
    await stack.offer("test/secret")
    listed = await stack.customer(allowed_models=[MODEL])
    client = Client(stack.edge_url, listed.secret)
    answer = await client.chat({**chat(), "model": "test/secret"})
    assert_error(answer, 400, "invalid_request_error", "invalid_request_error", "model")
    assert answer.error["valid_models"] == [MODEL]
    assert (await client.chat()).status == 200
    await stack.withdraw("test/secret")


REFUSED: dict[str, tuple[str, Any]] = {
    "custom_logit_processor": (CHAT, chat(custom_logit_processor="x")),
    "chat_template": (CHAT, chat(chat_template="{{x}}")),
    "chat_template_kwargs.chat_template": (CHAT, chat(chat_template_kwargs={"chat_template": "x"})),
    "priority": (CHAT, chat(priority=-100)),
    "request_id": (CHAT, chat(request_id="x")),
    "service_tier": (CHAT, chat(service_tier="priority")),
    "best_of": (CHAT, chat(best_of=5)),
    "ignore_eos": (CHAT, chat(ignore_eos=True)),
    "n": (CHAT, chat(n=2)),
    "background": (RESPONSES, responses(background=True)),
    "previous_response_id": (RESPONSES, responses(previous_response_id="resp_1")),
    "conversation": (RESPONSES, responses(conversation="conv_1")),
}


@pytest.mark.parametrize("param", REFUSED)
async def test_a_refused_field_is_named_with_the_reason(stack: Stack, untouched: Customer, param: str) -> None:
    path, body = REFUSED[param]
    answer = await Client(stack.edge_url, untouched.secret).chat(body, path=path)
    assert_error(answer, 400, "invalid_request_error", "unsupported_parameter", param)
    assert answer.error["message"].startswith(f"`{param}` ")
    assert stack.upstream.requests == []
    assert await stack.requests(untouched.account_id) == []


async def test_what_one_deployment_allows_may_pass_there(stack: Stack, client: Client) -> None:
    await stack.offer("test/allowing", [{"allow": ["priority"], "n_max": 3}])
    answer = await client.chat({**chat(priority=5, n=3), "model": "test/allowing"})
    assert answer.status == 200
    assert answer.json["usage"]["completion_tokens"] == 15
    await stack.withdraw("test/allowing")


async def test_images_are_taken_from_the_request_itself_only(stack: Stack, client: Client) -> None:
    def image(url: str) -> dict[str, Any]:
        return {**chat(), "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}

    assert (await client.chat(image("data:image/png;base64,AAAA"))).status == 200
    for url in ("http://10.0.0.1/admin", "https://example.com/a.png", "file:///etc/passwd", "HTTP://10.0.0.1", ""):
        answer = await client.chat(image(url))
        assert (answer.status, answer.error["code"]) == (400, "unsupported_parameter"), url
    assert len(stack.upstream.requests) == 1


# ---- 503 ----


async def test_a_model_without_a_server_is_503_with_a_time_to_come_back(stack: Stack, client: Client) -> None:
    await stack.offer("test/nowhere", [])
    answer = await client.chat({**chat(), "model": "test/nowhere"})
    assert_error(answer, 503, "server_error", None)
    assert 1 <= int(answer.header("retry-after") or "") <= 60
    await stack.withdraw("test/nowhere")


async def test_errors_of_many_clients_at_once_do_not_mix(client: Client) -> None:
    bodies: list[Any] = [b"{", {"messages": []}, {**chat(), "model": "x"}, chat(n=2), chat()] * 10
    answers = await asyncio.gather(*(client.chat(body) for body in bodies))
    assert [answer.status for answer in answers] == [400, 400, 400, 400, 200] * 10
    codes = [None if answer.status == 200 else answer.error["code"] for answer in answers]
    assert codes == [*["invalid_request_error"] * 3, "unsupported_parameter", None] * 10
