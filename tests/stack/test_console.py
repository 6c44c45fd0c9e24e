"""/console without a browser: its files, its cookie, and who may not use it."""

import json

import pytest
import pytest_asyncio

from edge.console.files import STATIC_DIR
from tests.harness.eventually import eventually
from tests.harness.stack import INFERENCE, MANAGEMENT, Customer, Stack
from tests.stack.client import Client, Headers, Response
from tests.stack.conftest import OpenStack

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE: Headers = (("X-Tollgate-Console", "1"), ("Sec-Fetch-Site", "same-origin"))
HOST = "tollgate.test"  # as tests/stack/client.py says it


async def sign_in(client: Client, secret: str, headers: Headers = PAGE) -> Response:
    return await client.ask("POST", "/console/session", json.dumps({"key": secret}).encode(), headers)


def cookie_of(answer: Response) -> str:
    header = answer.header("set-cookie")
    assert header is not None
    return header.partition(";")[0]


@pytest_asyncio.fixture(loop_scope="session")
async def manager(stack: Stack) -> Customer:
    return await stack.customer(scopes=[MANAGEMENT])


async def test_every_file_is_served_with_the_policy_and_not_sent_again_unless_it_changed(stranger: Client) -> None:
    for name in ("", "/", *(f"/{path.name}" for path in STATIC_DIR.iterdir() if path.suffix != ".html")):
        answer = await stranger.ask("GET", f"/console{name}")
        assert answer.status == 200, name
        policy = answer.header("content-security-policy") or ""
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
        assert "unsafe" not in policy
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("referrer-policy") == "no-referrer"
        again = await stranger.ask("GET", f"/console{name}", headers=[("If-None-Match", answer.header("etag") or "")])
        assert (again.status, again.body) == (304, b"")
        assert again.header("content-security-policy") == policy
        assert (await stranger.ask("HEAD", f"/console{name}")).status == 200
    for name in ("/nothing.js", "/../files.py", "/%2e%2e/files.py", "/api", "/api/", "/api/nothing", "/api/../session"):
        assert (await stranger.ask("GET", f"/console{name}", headers=PAGE)).status == 404, name


async def test_every_answer_below_the_page_carries_the_policy_also_refusals(
    stranger: Client, manager: Customer
) -> None:
    cookie = ("Cookie", cookie_of(await sign_in(stranger, manager.secret)))
    for method, path, headers, status in (
        ("GET", "", (), 200),
        ("PUT", "", (), 405),
        ("GET", "/session", PAGE, 200),
        ("GET", "/session", (), 403),
        ("GET", "/api/keys", [*PAGE, cookie], 200),
        ("GET", "/api/models", [*PAGE, cookie], 200),
        ("GET", "/api/usage", [*PAGE, cookie, ("Accept", "text/csv")], 200),
        ("GET", "/api/keys", PAGE, 401),
        ("GET", "/api/keys/nonsense", [*PAGE, cookie], 404),
        ("GET", "/nothing", PAGE, 404),
    ):
        answer = await stranger.ask(method, f"/console{path}", headers=headers)
        assert answer.status == status, path
        assert "frame-ancestors 'none'" in (answer.header("content-security-policy") or ""), path
        assert answer.header("x-content-type-options") == "nosniff", path
        assert answer.header("referrer-policy") == "no-referrer", path
    assert (await stranger.ask("GET", "/v1/models")).header("content-security-policy") is None


async def test_the_files_name_no_other_host_and_make_no_markup_of_text() -> None:
    for path in STATIC_DIR.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "").replace("//\n", ""), path.name
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="):
            assert way not in text, (path.name, way)


async def test_the_cookie_opens_the_management_api_and_nothing_else(
    stack: Stack, stranger: Client, manager: Customer
) -> None:
    answer = await sign_in(stranger, manager.secret)
    assert (answer.status, answer.json["signed_in"], answer.json["key_id"]) == (200, True, manager.key_id)
    attributes = (answer.header("set-cookie") or "").split("; ")[1:]
    assert attributes == ["Path=/console", "Max-Age=43200", "HttpOnly", "SameSite=Strict"]
    assert manager.secret not in answer.body.decode()
    cookie = ("Cookie", cookie_of(answer))
    for path in ("keys", "balance", "usage?group_by=day", "requests", "logs", "models", f"keys/{manager.key_id}"):
        assert (await stranger.ask("GET", f"/console/api/{path}", headers=[*PAGE, cookie])).status == 200, path
        assert (await stranger.ask("GET", f"/console/api/{path}", headers=PAGE)).status == 401, path
        assert (await stranger.ask("GET", f"/v1/{path}", headers=[*PAGE, cookie])).status == 401, path
    assert (await stranger.ask("POST", "/console/api/chat/completions", b"{}", [*PAGE, cookie])).status == 404
    doubled = ("Cookie", f"{cookie[1]}; tollgate_console=tg_other")
    assert (await stranger.ask("GET", "/console/api/keys", headers=[*PAGE, doubled])).status == 401

    other = await stack.customer(scopes=[MANAGEMENT])
    stolen = await stranger.ask("GET", f"/console/api/keys/{other.key_id}", headers=[*PAGE, cookie])
    assert stolen.status == 404
    # The cookie decides, whatever key comes along.
    both = [*PAGE, cookie, ("Authorization", f"Bearer {other.secret}")]
    [key] = (await stranger.ask("GET", "/console/api/keys", headers=both)).json["data"]
    assert key["id"] == manager.key_id


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ((), False),
        ((("X-Tollgate-Console", "1"), ("Sec-Fetch-Site", "cross-site")), False),
        ((("X-Tollgate-Console", "1"), ("Sec-Fetch-Site", "same-site")), False),
        ((("X-Tollgate-Console", "1"), ("Sec-Fetch-Site", "none")), False),
        ((("X-Tollgate-Console", "1"), ("Origin", "https://evil.test")), False),
        ((("X-Tollgate-Console", "1"), ("Origin", "null")), False),
        ((("X-Tollgate-Console", "1"), ("Origin", "http://[")), False),
        ((("X-Tollgate-Console", "1"), ("Sec-Fetch-Site", "cross-site"), ("Origin", f"http://{HOST}")), False),
        ((("X-Tollgate-Console", "1"),), False),
        ((("Sec-Fetch-Site", "same-origin"), ("Origin", f"http://{HOST}")), False),
        (PAGE, True),
        ((("X-Tollgate-Console", "1"), ("Origin", f"http://{HOST}")), True),
    ],
)
async def test_other_sites_can_neither_sign_in_nor_change_anything(
    stranger: Client, manager: Customer, headers: Headers, is_own: bool
) -> None:
    cookie = ("Cookie", f"tollgate_console={manager.secret}")
    answers = [
        await sign_in(stranger, manager.secret, headers),
        await stranger.ask("POST", "/console/api/keys", b'{"name": "theirs"}', [*headers, cookie]),
        await stranger.ask("DELETE", "/console/session", headers=[*headers, cookie]),
    ]
    for answer in answers:
        assert (answer.status == 200) is is_own
        assert is_own or answer.error["type"] == "permission_error"
    listed = await Client(f":{stranger.port}", manager.secret).ask("GET", "/v1/keys")
    assert len(listed.json["data"]) == (2 if is_own else 1)


async def test_the_cookie_is_for_https_alone_where_the_page_is(stranger: Client, manager: Customer) -> None:
    answer = await sign_in(stranger, manager.secret, [*PAGE, ("Origin", f"https://{HOST}")])
    assert (answer.header("set-cookie") or "").endswith("; Secure")


async def test_only_management_keys_sign_in_and_nonsense_is_refused_in_words(
    stack: Stack, stranger: Client, manager: Customer
) -> None:
    inference = await stack.create_key(manager.account_id, scopes=[INFERENCE])
    assert (await sign_in(stranger, inference.secret)).status == 403
    for secret in ("", "tg_x", "tg_x\r\nSet-Cookie: a=b", "ключ", manager.secret[:-1]):
        refused = await sign_in(stranger, secret)
        assert (refused.status, refused.header("set-cookie")) == (401, None), secret
    for body in (b"", b"[]", b'{"key": 5}', b'{"key": "a", "more": 1}', b"x" * 5000):
        refused = await stranger.ask("POST", "/console/session", body, PAGE)
        assert refused.status in (400, 413), body
        assert refused.error["message"]


async def test_a_revoked_key_signs_out_everywhere(stack: Stack, stranger: Client, manager: Customer) -> None:
    cookie = ("Cookie", cookie_of(await sign_in(stranger, manager.secret)))
    seen = await stranger.ask("GET", "/console/session", headers=[*PAGE, cookie])
    assert seen.json["signed_in"] is True
    async with stack.further_edge("second") as url:
        elsewhere = Client(url)
        assert (await elsewhere.ask("GET", "/console/api/balance", headers=[*PAGE, cookie])).status == 200
        await stack.revoke(manager)
        for client in (stranger, elsewhere):

            async def is_out(client: Client = client) -> bool:
                return (await client.ask("GET", "/console/api/balance", headers=[*PAGE, cookie])).status == 401

            await eventually(is_out)
            seen = await client.ask("GET", "/console/session", headers=[*PAGE, cookie])
            assert seen.json["signed_in"] is False
            assert "Max-Age=0" in (seen.header("set-cookie") or "")


async def test_guessing_a_key_at_the_door_is_limited(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"failed_keys_per_minute": 3})
    manager = await stack.customer(scopes=[MANAGEMENT])
    stranger = Client(stack.edge_url)
    statuses = []
    for _ in range(5):
        gone = await stack.create_key(manager.account_id, scopes=[MANAGEMENT])
        await stack.revoke(gone)
        statuses.append((await sign_in(stranger, gone.secret)).status)
    assert statuses == [401, 401, 401, 429, 429]


async def test_the_operator_can_take_the_page_away(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"console": False})
    for path in ("/console", "/console/app.js", "/console/session", "/console/api/keys"):
        assert (await Client(stack.edge_url).ask("GET", path, headers=PAGE)).status == 404
