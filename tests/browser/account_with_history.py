"""An account that looks lived in: keys of all kinds, models, and requests of several outcomes."""

import asyncio
import contextlib
import secrets
import sqlite3
import uuid
from pathlib import Path

import aiohttp

from protos.auth.v1 import auth_pb2
from protos.usage.v1 import usage_pb2
from tests.harness.stack import INFERENCE, MANAGEMENT, Customer, Stack, new_id
from tests.harness.upstream_answer import Answer

TOLL = (
    "A tollgate is a gate across a road, bridge or canal where travellers pay before they may pass. The first ones "
    "were simple poles that a keeper turned aside; today most are a row of lanes, and many of them never make you stop."
)


async def account_with_history(stack: Stack) -> Customer:
    """Returns its management key."""
    await _offer_models(stack)
    manager = await stack.customer(usd=80, name="console", scopes=[MANAGEMENT])
    account_id = manager.account_id
    website = await stack.create_key(
        account_id,
        name="website",
        log_inputs=True,
        log_outputs=True,
        limits=auth_pb2.KeyLimits(tier="production"),
    )
    batch = await stack.create_key(
        account_id,
        name="nightly batch",
        allowed_models=["test/model"],
        limits=auth_pb2.KeyLimits(tier="custom", requests_per_minute=120, concurrent_requests=8),
        spend_limit=auth_pb2.SpendLimit(limit_nanousd=40_000_000_000, period=auth_pb2.SPEND_PERIOD_MONTH),
    )
    await stack.create_key(account_id, name="both", scopes=[INFERENCE, MANAGEMENT])
    asked = 0
    async with aiohttp.ClientSession() as session:
        for key, model, answer in (
            (website, "test/large", Answer(text=TOLL, events=44, prompt_tokens=1240, cached_tokens=512)),
            (website, "test/model", Answer(events=20, prompt_tokens=310)),
            (batch, "test/model", Answer(events=60, prompt_tokens=4120, completion_tokens=900)),
            (website, "test/large", Answer(text=TOLL, events=44, prompt_tokens=1800, reasoning_events=12)),
            (batch, "test/model", Answer(status=500)),
        ):
            stack.upstream.script(answer)
            body = {
                "model": model,
                "stream": True,
                "messages": [
                    {"role": "system", "content": "You answer questions about roads, briefly."},
                    {"role": "user", "content": "What is a tollgate?"},
                ],
            }
            headers = {"authorization": f"Bearer {key.secret}"}
            async with session.post(f"{stack.edge_url}/v1/chat/completions", json=body, headers=headers) as answered:
                await answered.read()
            asked += 1
    await stack.settled(manager, asked)
    invented = await asyncio.to_thread(_tell_of_a_month, stack.folder / "usage.db", account_id)
    debit = usage_pb2.AdjustRequest(
        request_id=new_id(), account_id=account_id, amount_nanousd=-invented, note="history"
    )
    await stack.call(stack.usage_admin.Adjust, debit)
    stack.upstream.default = Answer(text=TOLL, events=44, prompt_tokens=14)
    return manager


def _tell_of_a_month(database: Path, account_id: str) -> int:
    """Copies the requests into the days before today: no service would let anybody write the past.
    Returns what they cost, in nano-USD."""
    invented = 0
    with contextlib.closing(sqlite3.connect(database, timeout=5)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(usage_event)")]
        rows = connection.execute("SELECT * FROM usage_event WHERE account_id = ?", [account_id]).fetchall()
        for days_ago in range(1, 30):
            for number, row in enumerate(rows * 3):
                event = dict(zip(columns, row, strict=True))
                if (days_ago * 5 + number * 3) % 8 < 2 + 3 * ((days_ago + 2) % 7 < 2):  # quieter at weekends
                    continue
                event["request_id"] = secrets.token_bytes(16) if isinstance(row[1], bytes) else str(uuid.uuid4())
                for name in ("admit_time_us", "end_time_us"):
                    event[name] -= days_ago * 86_400_000_000 + number * 1_000_000
                event["charged_nanousd"] *= 90 + 7 * ((days_ago * 13 + number) % 11)
                invented += event["charged_nanousd"]
                marks = ", ".join("?" * len(columns))
                connection.execute(f"INSERT INTO usage_event VALUES ({marks})", [event[name] for name in columns])
    return invented


async def _offer_models(stack: Stack) -> None:
    await stack.offer(
        "test/model",
        name="Small",
        description="Fast and cheap, for classification and short answers.",
        features=["tools", "json_mode"],
    )
    await stack.offer(
        "test/large",
        name="Large",
        description="For long documents and hard questions.",
        prices=[{"per_million": {"prompt": "0.55", "completion": "2.19", "input_cache_read": "0.14"}}],
        features=["tools", "structured_outputs", "reasoning"],
    )


def tell_of_many(database: Path, account_id: str, count: int) -> None:
    """Copies one request until there are `count` more, a second apart, further and further back."""
    with contextlib.closing(sqlite3.connect(database, timeout=5)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(usage_event)")]
        row = connection.execute("SELECT * FROM usage_event WHERE account_id = ? LIMIT 1", [account_id]).fetchone()
        copies = []
        for number in range(1, count + 1):
            event = dict(zip(columns, row, strict=True))
            for name in ("admit_time_us", "end_time_us"):
                event[name] -= number * 1_000_000
            # Lists go on after an id, which carries its time.
            stamp = event["admit_time_us"] // 1000 << 80 | 7 << 76 | 2 << 62  # a UUIDv7
            event["request_id"] = str(uuid.UUID(int=stamp | secrets.randbits(12) << 64 | secrets.randbits(62)))
            copies.append([event[name] for name in columns])
        connection.executemany(f"INSERT INTO usage_event VALUES ({', '.join('?' * len(columns))})", copies)
