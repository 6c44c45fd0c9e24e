"""/v1/keys over HTTP: what customers do with their keys, and what they cannot do with anybody else's."""

import asyncio
import json
import time
from typing import Any

import pytest
import pytest_asyncio

from protos.auth.v1 import auth_pb2
from tests.harness.eventually import eventually
from tests.harness.stack import INFERENCE, MANAGEMENT, MODEL, Customer, Json, Stack
from tests.stack.client import Client, Response, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS = {"auth": {"keys_per_account_max": 6, "log_retention_days_max": 30}}
NO_KEY = "key_" + "0" * 22


@pytest_asyncio.fixture(loop_scope="session")
async def owner(stack: Stack) -> Customer:
    """An account with credit and one key, which manages."""
    return await stack.customer(scopes=[MANAGEMENT])


@pytest.fixture
def manage(stack: Stack, owner: Customer) -> Client:
    return Client(stack.edge_url, owner.secret)


async def send(client: Client, method: str, path: str, body: Any = None) -> Response:
    return await client.ask(method, path, None if body is None else json.dumps(body).encode())


async def made(client: Client, **fields: Any) -> Json:
    answer = await send(client, "POST", "/v1/keys", {"name": "a key", **fields})
    assert answer.status == 200, answer.body
    key: Json = answer.json
    return key


async def test_a_new_key_shows_its_secret_once_and_works(stack: Stack, manage: Client) -> None:
    before_s = int(time.time())
    key = await made(manage, name="laptop", models=[MODEL], retention_days=30, log_inputs=True)
    assert key["object"] == "key"
    assert key["secret"].startswith("tg_")
    assert key["redacted_value"] == f"{key['secret'][:11]}..."
    assert before_s <= key["created_at"] <= time.time()
    assert (key["status"], key["scopes"], key["models"]) == ("active", ["inference"], [MODEL])
    assert (key["log_inputs"], key["log_outputs"], key["retention_days"]) == (True, False, 30)
    for name in ("expires_at", "revoked_at", "last_used_at", "limits", "spend_limit"):
        assert key[name] is None
    shown = await send(manage, "GET", f"/v1/keys/{key['id']}")
    assert shown.json == {name: value for name, value in key.items() if name != "secret"}
    assert (await Client(stack.edge_url, key["secret"]).chat()).status == 200
    listed = (await send(manage, "GET", "/v1/keys")).json
    assert key["secret"] not in json.dumps(listed)


async def test_limits_and_a_spend_limit_are_kept_as_given(manage: Client) -> None:
    key = await made(
        manage,
        limits={"requests_per_minute": 60, "concurrent_requests": 5},
        spend_limit={"amount_usd": "0.000000001", "period": "month"},
    )
    assert key["limits"] == {
        "tier": "custom",
        "requests_per_minute": 60,
        "tokens_per_minute": None,
        "concurrent_requests": 5,
    }
    assert key["spend_limit"] == {"amount_usd": "0.000000001", "period": "month"}
    path = f"/v1/keys/{key['id']}"
    changed = (await send(manage, "PATCH", path, {"limits": {"tier": "developer"}, "spend_limit": None})).json
    assert changed["limits"] == {
        "tier": "developer",
        "requests_per_minute": 60,
        "tokens_per_minute": 500_000,
        "concurrent_requests": 5,
    }
    assert changed["spend_limit"] is None
    assert (await send(manage, "PATCH", path, {"limits": changed["limits"]})).json == changed
    assert (await send(manage, "PATCH", path, {"limits": None})).json["limits"] is None


async def test_a_change_touches_what_it_names_and_nothing_else(manage: Client) -> None:
    later = int(time.time()) + 3600
    key = await made(manage, models=[MODEL], expires_at=later)
    assert key["expires_at"] == later
    path = f"/v1/keys/{key['id']}"
    changed = (await send(manage, "PATCH", path, {"name": "renamed", "log_outputs": True})).json
    del key["secret"]
    assert changed == {**key, "name": "renamed", "log_outputs": True}
    freed = (await send(manage, "PATCH", path, {"models": None, "expires_at": None})).json
    assert (freed["models"], freed["expires_at"]) == (None, None)
    nothing = await send(manage, "PATCH", path, {})
    assert (nothing.status, nothing.error["param"]) == (400, None)


async def test_keys_are_listed_newest_first_in_pages(manage: Client, owner: Customer) -> None:
    made_ids = [(await made(manage))["id"] for _ in range(4)]
    expected = [*reversed(made_ids), owner.key_id]
    found: list[str] = []
    for _ in range(3):
        page = (await send(manage, "GET", f"/v1/keys?limit=2{f'&after={found[-1]}' if found else ''}")).json
        ids = [key["id"] for key in page["data"]]
        assert (page["object"], page["first_id"], page["last_id"]) == ("list", ids[0], ids[-1])
        found += ids
        assert page["has_more"] is (len(found) < 5)
    assert found == expected
    end = (await send(manage, "GET", f"/v1/keys?after={owner.key_id}")).json
    assert (end["data"], end["first_id"], end["last_id"], end["has_more"]) == ([], None, None, False)


async def test_a_deleted_key_stops_within_a_second_and_is_listed_only_on_request(stack: Stack, manage: Client) -> None:
    key = await made(manage)
    user = Client(stack.edge_url, key["secret"])
    assert (await user.chat()).status == 200
    path = f"/v1/keys/{key['id']}"
    for _ in range(2):
        answer = await send(manage, "DELETE", path)
        assert (answer.status, answer.json) == (200, {"id": key["id"], "object": "key.deleted", "deleted": True})

    async def refused() -> bool:
        return (await user.chat()).status == 401

    await eventually(refused, 1.0)
    assert key["id"] not in [each["id"] for each in (await send(manage, "GET", "/v1/keys")).json["data"]]
    revoked = (await send(manage, "GET", "/v1/keys?include_revoked=true")).json["data"][0]
    assert (revoked["id"], revoked["status"]) == (key["id"], "revoked")
    assert revoked["revoked_at"] is not None
    changed = await send(manage, "PATCH", path, {"name": "n"})
    assert (changed.status, changed.error["code"]) == (400, "key_not_working")
    rotated = await send(manage, "POST", f"{path}/rotate")
    assert (rotated.status, rotated.error["code"]) == (400, "key_not_working")


async def test_a_rotated_key_works_beside_the_new_one(stack: Stack, manage: Client) -> None:
    key = await made(manage, name="rotated", models=[MODEL])
    before_s = int(time.time())
    answer = (await send(manage, "POST", f"/v1/keys/{key['id']}/rotate", {"overlap_seconds": 600})).json
    assert answer["id"] != key["id"]
    assert (answer["name"], answer["models"], answer["expires_at"]) == ("rotated", [MODEL], None)
    old = answer["rotated_key"]
    assert (old["id"], old["status"]) == (key["id"], "active")
    assert 0 <= old["expires_at"] - before_s - 600 <= 5
    for secret in (key["secret"], answer["secret"]):
        assert (await Client(stack.edge_url, secret).chat()).status == 200
    by_default = (await send(manage, "POST", f"/v1/keys/{answer['id']}/rotate")).json
    assert 0 <= by_default["rotated_key"]["expires_at"] - before_s - 86_400 <= 5
    at_once = (await send(manage, "POST", f"/v1/keys/{by_default['id']}/rotate", {"overlap_seconds": 0})).json
    assert at_once["rotated_key"]["status"] == "revoked"


async def test_a_rotated_key_stops_at_every_edge_when_its_overlap_ends(stack: Stack, manage: Client) -> None:
    key = await made(manage)
    async with stack.further_edge("edge-rotation") as url:
        edges = [Client(each, key["secret"]) for each in (stack.edge_url, url)]
        assert [(await edge.chat()).status for edge in edges] == [200, 200]
        answer = (await send(manage, "POST", f"/v1/keys/{key['id']}/rotate", {"overlap_seconds": 3})).json
        said_s = answer["rotated_key"]["expires_at"]  # in whole seconds: it works within that second
        while time.time() < said_s - 0.1:
            statuses = [(await edge.chat()).status for edge in edges]
            if time.time() < said_s:
                assert statuses == [200, 200]
            await asyncio.sleep(0.1)
        await asyncio.sleep(said_s + 1 - time.time())
        assert [(await edge.chat()).status for edge in edges] == [401, 401]
        assert [(await Client(each, answer["secret"]).chat()).status for each in (stack.edge_url, url)] == [200, 200]
    shown = (await send(manage, "GET", f"/v1/keys/{key['id']}")).json
    assert (shown["status"], shown["expires_at"]) == ("expired", said_s)


async def test_the_last_management_key_cannot_delete_itself_nor_give_up_its_scope_nor_expire_soon(
    stack: Stack, manage: Client, owner: Customer
) -> None:
    path = f"/v1/keys/{owner.key_id}"
    soon = int(time.time()) + 60
    for method, way, body in (
        ("DELETE", "", None),
        ("PATCH", "", {"scopes": ["inference"]}),
        ("PATCH", "", {"expires_at": soon}),
        ("POST", "/rotate", {"expires_at": soon, "overlap_seconds": 0}),
    ):
        answer = await send(manage, method, path + way, body)
        assert (answer.status, answer.error["code"]) == (400, "last_management_key")
    second = await made(manage, scopes=["management"])
    assert (await send(manage, "DELETE", path)).status == 200
    other = Client(stack.edge_url, second["secret"])
    assert (await send(other, "DELETE", f"/v1/keys/{second['id']}")).status == 400


async def test_a_management_key_cannot_generate_and_an_inference_key_cannot_manage(
    stack: Stack, manage: Client, owner: Customer
) -> None:
    answer = await manage.chat()
    assert (answer.status, answer.error["code"]) == (403, "PERMISSION_DENIED")
    user = Client(stack.edge_url, (await made(manage))["secret"])
    for method, path in EVERY_CALL:
        answer = await send(user, method, path.format(owner.key_id), {})
        assert (answer.status, answer.error["code"]) == (403, "PERMISSION_DENIED"), (method, path)
    both = await stack.create_key(owner.account_id, scopes=[INFERENCE, MANAGEMENT])
    assert (await Client(stack.edge_url, both.secret).chat()).status == 200
    assert (await Client(stack.edge_url, both.secret).ask("GET", "/v1/keys")).status == 200


EVERY_CALL = [
    ("GET", "/v1/keys"),
    ("POST", "/v1/keys"),
    ("GET", "/v1/keys/{}"),
    ("PATCH", "/v1/keys/{}"),
    ("DELETE", "/v1/keys/{}"),
    ("POST", "/v1/keys/{}/rotate"),
    ("GET", "/v1/balance"),
    ("GET", "/v1/usage"),
    ("GET", "/v1/requests"),
    ("GET", "/v1/requests/{}"),
]


@pytest.mark.parametrize(("method", "path"), EVERY_CALL)
async def test_without_a_working_key_nothing_is_told(stranger: Client, method: str, path: str) -> None:
    for secret in ("", "nonsense", "tg_" + "0" * 39):
        stranger.secret = secret
        answer = await send(stranger, method, path.format(NO_KEY), {})
        assert (answer.status, answer.error["code"]) == (401, "INVALID_API_KEY")


async def test_another_accounts_key_is_404_as_if_it_did_not_exist(stack: Stack, manage: Client) -> None:
    other = Client(stack.edge_url, (await stack.customer(scopes=[MANAGEMENT])).secret)
    theirs = await made(other, name="theirs")
    calls: list[tuple[str, str, Json | None]] = [
        ("GET", "", None),
        ("PATCH", "", {"name": "mine"}),
        ("DELETE", "", None),
        ("POST", "/rotate", {}),
    ]
    for method, below, body in calls:
        said = set()
        for key_id in (theirs["id"], NO_KEY, "nonsense", "%2e%2e", "a%2Fb", "%00", "k" * 200):
            answer = await send(manage, method, f"/v1/keys/{key_id}{below}", body)
            assert answer.status == 404
            said.add(answer.body)
        assert len(said) == 1
    cursor = await send(manage, "GET", f"/v1/keys?after={theirs['id']}")
    nowhere = await send(manage, "GET", f"/v1/keys?after={NO_KEY}")
    assert (cursor.status, cursor.body, cursor.error["param"]) == (400, nowhere.body, "after")
    assert theirs["id"] not in json.dumps((await send(manage, "GET", "/v1/keys?include_revoked=true")).json)
    assert (await send(other, "GET", f"/v1/keys/{theirs['id']}")).json["name"] == "theirs"


BAD_BODIES: list[tuple[str | None, Any]] = [
    ("name", {}),
    ("name", {"name": 1}),
    ("name", {"name": ""}),
    ("name", {"name": "a\nb"}),
    ("name", {"name": " a"}),
    ("name", {"name": "n" * 101}),
    ("colour", {"name": "n", "colour": "red"}),
    ("limits.colour", {"name": "n", "limits": {"colour": 1}}),
    ("scopes[0]", {"name": "n", "scopes": ["root"]}),
    ("scopes", {"name": "n", "scopes": []}),
    ("scopes", {"name": "n", "scopes": "inference"}),
    ("expires_at", {"name": "n", "expires_at": 1}),
    ("expires_at", {"name": "n", "expires_at": -1}),
    ("expires_at", {"name": "n", "expires_at": 10**30}),
    ("expires_at", {"name": "n", "expires_at": "tomorrow"}),
    ("expires_at", {"name": "n", "expires_at": True}),
    ("models", {"name": "n", "models": []}),
    ("models[1]", {"name": "n", "models": ["a", "a"]}),
    ("models[0]", {"name": "n", "models": [7]}),
    ("limits", {"name": "n", "limits": []}),
    ("limits.requests_per_minute", {"name": "n", "limits": {"requests_per_minute": -1}}),
    ("limits.tokens_per_minute", {"name": "n", "limits": {"tokens_per_minute": 10**20}}),
    ("limits.tier", {"name": "n", "limits": {"tier": "golden"}}),
    ("spend_limit.period", {"name": "n", "spend_limit": {"amount_usd": "1.00"}}),
    ("spend_limit.amount_usd", {"name": "n", "spend_limit": {"amount_usd": 1, "period": "day"}}),
    ("spend_limit.amount_usd", {"name": "n", "spend_limit": {"amount_usd": "-1.00", "period": "day"}}),
    ("spend_limit.amount_usd", {"name": "n", "spend_limit": {"amount_usd": "0.00", "period": "day"}}),
    ("spend_limit.amount_usd", {"name": "n", "spend_limit": {"amount_usd": "9999999999", "period": "day"}}),
    ("log_inputs", {"name": "n", "log_inputs": "yes"}),
    ("retention_days", {"name": "n", "retention_days": 31}),
    ("retention_days", {"name": "n", "retention_days": 0}),
    ("retention_days", {"name": "n", "retention_days": 5000}),
    (None, []),
    (None, "text"),
]


@pytest.mark.parametrize(("param", "body"), BAD_BODIES, ids=str)
async def test_a_key_that_cannot_be_is_refused_by_the_name_of_its_field(
    manage: Client, param: str | None, body: Any
) -> None:
    answer = await send(manage, "POST", "/v1/keys", body)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert (param or "body") in answer.error["message"]
    assert len((await send(manage, "GET", "/v1/keys")).json["data"]) == 1


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"name": "\xff"}', b'{"name": "\\ud800"}', b'{"name":"n"} {}', b"[" * 5000]
)
async def test_what_is_not_json_is_refused(manage: Client, body: bytes) -> None:
    answer = await manage.ask("POST", "/v1/keys", body)
    assert (answer.status, answer.error["code"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("param", "query"),
    [
        ("limit", "limit=0"),
        ("limit", "limit=101"),
        ("limit", "limit=-1"),
        ("limit", "limit=ten"),
        ("limit", "limit=1&limit=2"),
        ("limit", "limit="),
        ("after", "after="),
        ("after", "after=nonsense"),
        ("after", "after=%00"),
        ("include_revoked", "include_revoked=1"),
        ("page", "page=2"),
    ],
)
async def test_a_parameter_that_cannot_be_is_refused_by_its_name(manage: Client, param: str, query: str) -> None:
    answer = await send(manage, "GET", f"/v1/keys?{query}")
    assert (answer.status, answer.error["param"]) == (400, param)


async def test_an_account_has_no_more_keys_than_it_may(manage: Client) -> None:
    for _ in range(5):
        await made(manage)
    answer = await send(manage, "POST", "/v1/keys", {"name": "one too many"})
    assert (answer.status, answer.error["code"]) == (400, "too_many_keys")


async def test_a_suspended_account_manages_nothing(stack: Stack, manage: Client, owner: Customer) -> None:
    assert (await send(manage, "GET", "/v1/keys")).status == 200
    await stack.set_state(owner.account_id, auth_pb2.ACCOUNT_STATE_SUSPENDED)

    async def refused() -> bool:
        return (await send(manage, "GET", "/v1/keys")).status == 403

    await eventually(refused)
    assert (await send(manage, "POST", "/v1/keys", {"name": "n"})).status == 403


async def test_the_last_use_of_a_key_is_shown(stack: Stack, manage: Client) -> None:
    key = await made(manage)
    before_s = int(time.time())
    assert (await Client(stack.edge_url, key["secret"]).chat(chat())).status == 200

    async def shown() -> bool:
        listed = (await send(manage, "GET", "/v1/keys")).json["data"]
        last_used_at = next(each for each in listed if each["id"] == key["id"])["last_used_at"]
        return last_used_at is not None and before_s <= last_used_at <= time.time()

    await eventually(shown, 10.0)


async def test_methods_and_paths_that_are_not_there_say_what_is(manage: Client) -> None:
    for method, path, allow in (
        ("PUT", "/v1/keys", "GET, HEAD, POST, OPTIONS"),
        ("POST", f"/v1/keys/{NO_KEY}", "GET, HEAD, PATCH, DELETE, OPTIONS"),
        ("GET", f"/v1/keys/{NO_KEY}/rotate", "POST, OPTIONS"),
        ("DELETE", "/v1/requests/1", "GET, HEAD, OPTIONS"),
        ("POST", "/v1/balance", "GET, HEAD, OPTIONS"),
    ):
        answer = await send(manage, method, path)
        assert (answer.status, answer.header("allow")) == (405, allow)
    for path in ("/v1/keys/", "/v1/keys/a/b", "/v1/keys//rotate", "/v1/keys/a/rotate/", "/v1/requests/a/b"):
        assert (await send(manage, "GET", path)).status == 404
    head = await manage.ask("HEAD", "/v1/keys")
    assert (head.status, head.body) == (200, b"")
    preflight = await manage.ask(
        "OPTIONS",
        f"/v1/keys/{NO_KEY}",
        None,
        [("Origin", "https://app.example"), ("Access-Control-Request-Method", "PATCH")],
    )
    assert preflight.status == 204
    assert preflight.header("access-control-allow-methods") == "GET, HEAD, PATCH, DELETE, OPTIONS"


async def test_a_large_body_is_refused(manage: Client) -> None:
    answer = await manage.ask("POST", "/v1/keys", b'{"name": "' + b"n" * 1024 * 1024 + b'"}')
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
