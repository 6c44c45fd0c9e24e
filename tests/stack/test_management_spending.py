"""/v1/balance, /v1/usage and /v1/requests over HTTP: exact, of one's own account, and refused where they cannot be."""

import asyncio
import csv
import io
import json
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from protos.usage.v1 import usage_pb2
from tests.harness.stack import INFERENCE, MANAGEMENT, MODEL, NANOUSD, Customer, Json, Stack, new_id
from tests.stack.client import RESPONSES, Client, Response, chat, responses

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOTH = [INFERENCE, MANAGEMENT]
COST = 3 * 1000 + 3 * 2000  # of a plain chat: three tokens in, three out


@pytest_asyncio.fixture(loop_scope="session")
async def owner(stack: Stack) -> Customer:
    """An account with 5 USD and one key, which generates and manages."""
    return await stack.customer(scopes=BOTH)


@pytest.fixture
def manage(stack: Stack, owner: Customer) -> Client:
    return Client(stack.edge_url, owner.secret)


async def get(client: Client, path: str, *headers: tuple[str, str]) -> Response:
    return await client.ask("GET", path, None, headers)


async def found(client: Client, path: str) -> Json:
    answer = await get(client, path)
    assert answer.status == 200, answer.body
    shown: Json = answer.json
    return shown


def nanousd(usd: str) -> int:
    """An amount as the API writes it."""
    amount = Decimal(usd) * NANOUSD
    assert amount == int(amount)
    return int(amount)


async def test_a_balance_is_exact_and_names_what_was_spent(stack: Stack, manage: Client, owner: Customer) -> None:
    fresh = await found(manage, "/v1/balance")
    assert fresh == {
        "object": "balance",
        "balance_usd": "5.00",
        "held_usd": "0.00",
        "available_usd": "5.00",
        "grace_usd": "1.00",
        "credits_usd": "5.00",
        "spent_today_usd": "0.00",
        "spent_this_month_usd": "0.00",
    }
    await manage.chat()
    [request] = await stack.settled(owner, 1)
    after = await found(manage, "/v1/balance")
    posted = await stack.balance(owner.account_id)
    assert nanousd(after["balance_usd"]) == 5 * NANOUSD - request.charged_nanousd == posted.posted_nanousd
    assert nanousd(after["held_usd"]) == posted.reserved_nanousd
    assert nanousd(after["available_usd"]) == posted.available_nanousd
    for name in ("spent_today_usd", "spent_this_month_usd"):
        assert nanousd(after[name]) == request.charged_nanousd > 0


async def test_usage_sums_equal_the_ledger_in_every_grouping(stack: Stack, manage: Client, owner: Customer) -> None:
    other_model = await stack.offer_new()
    second = await stack.create_key(owner.account_id)
    user = Client(stack.edge_url, second.secret)
    await asyncio.gather(
        manage.chat(),
        manage.chat(chat(stream=True)),
        user.chat(chat(model=other_model)),
        user.chat(responses(), path=RESPONSES),
    )
    await stack.settled(owner, 4)
    entries = await stack.call(
        stack.usage_reader.ListEntries, usage_pb2.ListEntriesRequest(account_id=owner.account_id)
    )
    charged = sum(entry.amount_nanousd for entry in entries.entries if entry.kind == usage_pb2.ENTRY_KIND_CHARGE)
    for group_by in ("", "day", "hour", "model", "key", "model,key", "day,model,key", "key,hour,model"):
        listed = await found(manage, f"/v1/usage{f'?group_by={group_by}' if group_by else ''}")
        assert (listed["object"], listed["has_more"]) == ("list", False)
        rows = listed["data"]
        assert sum(nanousd(row["cost_usd"]) for row in rows) == nanousd(listed["total"]["cost_usd"]) == charged
        assert sum(row["requests"] for row in rows) == listed["total"]["requests"] == 4
        for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "errors"):
            assert sum(row[name] for row in rows) == listed["total"][name]
        for row in rows:
            assert (row["model"] is not None) is ("model" in group_by)
            assert (row["key_id"] is not None) is ("key" in group_by)
            if "day" in group_by or "hour" in group_by:
                length = 86_400 if "day" in group_by else 3600
                assert row["start_time"] % length == 0
                assert row["end_time"] == row["start_time"] + length
            else:
                assert row["start_time"] is row["end_time"] is None
    by_key = await found(manage, f"/v1/usage?group_by=key&key={second.key_id}")
    assert [(row["key_id"], row["requests"]) for row in by_key["data"]] == [(second.key_id, 2)]
    by_model = await found(manage, f"/v1/usage?group_by=model&model={other_model}")
    assert [(row["model"], row["requests"]) for row in by_model["data"]] == [(other_model, 1)]


async def test_usage_is_of_the_time_that_is_asked_for(stack: Stack, manage: Client, owner: Customer) -> None:
    await manage.chat()
    await stack.settled(owner, 1)
    now = int(time.time())
    today = datetime.fromtimestamp(now, UTC)
    for query, requests in (
        (f"from={now - 600}&to={now + 600}", 1),
        (f"from={now + 600}", 0),
        (f"to={now - 600}", 0),
        (f"from={today:%Y-%m-%d}", 1),
        (f"from={today:%Y-%m-%d}T00:00:00Z", 1),
        (f"from={today:%Y-%m-%d}T00:00:00%2B00:00", 1),
        ("from=0&to=0", 0),
        ("to=0001-01-01", 0),
        ("from=0001-01-01&to=9999-12-31", 1),
    ):
        assert (await found(manage, f"/v1/usage?{query}"))["total"]["requests"] == requests, query


async def test_usage_is_csv_to_who_accepts_that(stack: Stack, manage: Client, owner: Customer) -> None:
    await manage.chat()
    await stack.settled(owner, 1)
    answer = await get(manage, "/v1/usage?group_by=day,model,key", ("Accept", "text/csv"))
    assert (answer.status, answer.header("content-type")) == (200, "text/csv; charset=utf-8")
    [row] = csv.DictReader(io.StringIO(answer.body.decode()))
    [same] = (await found(manage, "/v1/usage?group_by=day,model,key"))["data"]
    assert row == {name: str(value) for name, value in same.items() if name != "object"}
    both = await get(manage, "/v1/usage", ("Accept", "application/json, text/csv"))
    assert both.header("content-type") == "application/json"


async def test_a_request_is_found_by_the_id_that_its_answer_had(stack: Stack, manage: Client, owner: Customer) -> None:
    answer = await manage.chat(chat(stream=True))
    request_id = answer.header("x-request-id")
    before_s = int(time.time())
    [summary] = await stack.settled(owner, 1)
    shown = await found(manage, f"/v1/requests/{request_id}")
    assert abs(shown.pop("created_at") - before_s) <= 5
    assert abs(shown.pop("completed_at") - before_s) <= 5
    # A scripted upstream answers within a millisecond, and that is none.
    assert shown.pop("duration_ms") + 1 >= (shown.pop("time_to_first_byte_ms") or 0)
    price = shown.pop("price")
    assert price.pop("version") == summary.event.price.price_version
    assert (price["prompt"], price["completion"]) == ("0.000001", "0.000002")
    assert nanousd(shown["cost_usd"]) == summary.charged_nanousd > 0
    tokens = summary.event.tokens
    assert shown["usage"]["prompt_tokens"] == tokens.prompt_tokens
    assert shown["usage"]["completion_tokens"] == tokens.completion_tokens
    del shown["usage"], shown["cost_usd"]
    assert shown == {
        "id": request_id,
        "object": "request",
        "endpoint": "/v1/chat/completions",
        "model": MODEL,
        "key_id": owner.key_id,
        "status": 200,
        "ending": "completed",
        "outcome": "measured",
        "usage_source": "upstream_final",
        "streamed": True,
        "refunded_usd": "0.00",
        "refunds": [],
    }
    assert "deployment" not in json.dumps(await found(manage, "/v1/requests"))


async def test_requests_are_listed_newest_first_in_pages_and_filtered(
    stack: Stack, manage: Client, owner: Customer
) -> None:
    second = await stack.create_key(owner.account_id)
    user = Client(stack.edge_url, second.secret)
    for client in (manage, user, manage):
        await client.chat()
    await stack.settled(owner, 3)
    everything = await found(manage, "/v1/requests")
    ids = [each["id"] for each in everything["data"]]
    assert (everything["object"], everything["has_more"]) == ("list", False)
    assert (everything["first_id"], everything["last_id"]) == (ids[0], ids[-1])
    assert [each["key_id"] for each in everything["data"]] == [owner.key_id, second.key_id, owner.key_id]
    page = await found(manage, "/v1/requests?limit=2")
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (ids[:2], True)
    rest = await found(manage, f"/v1/requests?limit=2&after={page['last_id']}")
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (ids[2:], False)
    by_key = await found(manage, f"/v1/requests?key={second.key_id}&model={MODEL}")
    assert [each["id"] for each in by_key["data"]] == [ids[1]]
    for nothing in ("errors=true", "model=no/such", f"from={int(time.time()) + 60}", "to=2020-01-01"):
        assert (await found(manage, f"/v1/requests?{nothing}"))["data"] == []


async def test_a_refund_and_its_reason_are_shown(stack: Stack, manage: Client, owner: Customer) -> None:
    await manage.chat()
    [summary] = await stack.settled(owner, 1)
    refund = usage_pb2.RefundRequest(
        request_id=new_id(),
        account_id=owner.account_id,
        charged_request_id=summary.event.request_id,
        amount_nanousd=1,
        reason="an <b>outage</b> of ours",
    )
    await stack.call(stack.usage_admin.Refund, refund)
    shown = await found(manage, f"/v1/requests/{summary.event.request_id}")
    assert shown["refunded_usd"] == "0.000000001"
    [each] = shown["refunds"]
    assert (each["amount_usd"], each["reason"]) == ("0.000000001", "an <b>outage</b> of ours")
    total = (await found(manage, "/v1/usage"))["total"]
    assert (nanousd(total["cost_usd"]), total["refunded_usd"]) == (summary.charged_nanousd, "0.000000001")
    assert nanousd((await found(manage, "/v1/balance"))["spent_today_usd"]) == summary.charged_nanousd - 1


async def test_another_account_sees_nothing_of_this_one(stack: Stack, manage: Client, owner: Customer) -> None:
    await manage.chat()
    [summary] = await stack.settled(owner, 1)
    other = Client(stack.edge_url, (await stack.customer(usd=0, scopes=[MANAGEMENT])).secret)
    request_id = summary.event.request_id
    unknown = await get(other, f"/v1/requests/{new_id()}")
    theirs = await get(other, f"/v1/requests/{request_id}")
    assert (theirs.status, theirs.body) == (404, unknown.body)
    for path in ("/v1/requests", f"/v1/requests?key={owner.key_id}"):
        assert (await found(other, path))["data"] == []
    for path in ("/v1/usage", f"/v1/usage?key={owner.key_id}", "/v1/usage?from=0"):
        assert (await found(other, path))["total"]["requests"] == 0
    assert (await found(other, "/v1/balance"))["balance_usd"] == "0.00"
    cursor = await get(other, f"/v1/requests?after={request_id}")
    nowhere = await get(other, f"/v1/requests?after={new_id()}")
    assert (cursor.status, cursor.body, cursor.error["param"]) == (400, nowhere.body, "after")


BAD_QUERIES: list[tuple[str, str]] = [
    ("group_by", "/v1/usage?group_by=week"),
    ("group_by", "/v1/usage?group_by=day,hour"),
    ("group_by", "/v1/usage?group_by=key,key"),
    ("group_by", "/v1/usage?group_by="),
    ("from", "/v1/usage?from=yesterday"),
    ("from", "/v1/usage?from=2027-13-01"),
    ("from", "/v1/usage?from=99999999999999"),
    ("from", "/v1/usage?from=-1"),
    ("from", "/v1/usage?from=2027-01-01T00:00:00"),
    ("to", "/v1/usage?from=10&to=9"),
    ("to", "/v1/requests?from=10&to=9"),
    ("model", "/v1/usage?model=" + "m" * 201),
    ("key", "/v1/usage?key="),
    ("colour", "/v1/usage?colour=red"),
    ("limit", "/v1/requests?limit=1000"),
    ("errors", "/v1/requests?errors=yes"),
    ("after", "/v1/requests?after=nonsense"),
    ("after", "/v1/requests?after=%F0%9F%98%80"),
    ("account_id", "/v1/balance?account_id=other"),
]


@pytest.mark.parametrize(("param", "path"), BAD_QUERIES)
async def test_a_question_that_cannot_be_is_refused_by_its_parameter(manage: Client, param: str, path: str) -> None:
    answer = await get(manage, path)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert param in answer.error["message"]


@pytest.mark.parametrize("query", ["a=%FF", "&".join(f"a{n}=1" for n in range(60))])
async def test_a_query_that_cannot_be_read_is_refused(manage: Client, query: str) -> None:
    assert (await get(manage, f"/v1/usage?{query}")).status == 400


async def test_one_account_cannot_ask_too_much_at_once(stack: Stack, manage: Client) -> None:
    other = Client(stack.edge_url, (await stack.customer(scopes=[MANAGEMENT])).secret)
    for client in (manage, other):
        await found(client, "/v1/usage")
    answers, theirs = await asyncio.gather(
        asyncio.gather(*(get(manage, "/v1/usage?from=0") for _ in range(60))), get(other, "/v1/usage")
    )
    assert {answer.status for answer in answers} == {200, 429}
    assert theirs.status == 200
    refused = next(answer for answer in answers if answer.status == 429)
    assert (refused.error["code"], refused.header("retry-after")) == ("rate_limit_exceeded", "1")
    await found(manage, "/v1/usage")


async def test_while_a_service_is_away_its_answers_are_503_and_keys_go_on(fresh_stack: Any) -> None:
    stack = await fresh_stack(edge={"rpc_timeout_s": 2})
    client = Client(stack.edge_url, (await stack.customer(scopes=BOTH)).secret)
    assert (await get(client, "/v1/balance")).status == 200
    await stack.stop("usage")
    for path in ("/v1/balance", "/v1/usage", "/v1/requests", f"/v1/requests/{new_id()}"):
        answer = await get(client, path)
        assert (answer.status, answer.header("retry-after")) == (503, "1"), path
    assert (await get(client, "/v1/keys")).status == 200
    await stack.start("usage")
    await stack.stop("auth")
    for method, path, body in (("GET", "/v1/keys", None), ("POST", "/v1/keys", b'{"name": "n"}')):
        answer = await client.ask(method, path, body)
        assert (answer.status, answer.header("retry-after")) == (503, "1")
