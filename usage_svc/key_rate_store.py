"""SQL about the rates of keys. Rows are locked in the order of their keys."""

import json
from collections.abc import Iterable, Sequence

from usage_svc.driver import Command, Query, Row
from usage_svc.key_rate import FORGET_S, KeyRate, holdings_from_json

_COLUMNS = "key_id, used_requests, used_tokens, time_us, holdings"


def lock(key_ids: Sequence[str]) -> Query:
    """Locks the rows of keys, for `key_rate_from_row`, the database's time with each. Unused keys have none."""
    return Query(
        f"SELECT {_COLUMNS}, {{now_us}} FROM key_rate "  # noqa: S608 - our names
        "WHERE key_id IN_LIST($1) ORDER BY key_id {for_update}",
        (sorted(key_ids),),
    )


def make(key_ids: Iterable[str]) -> Command:
    """Makes rows for keys that have none. Another transaction may do the same at once: lock them afterwards."""
    return Command(
        "INSERT INTO key_rate (key_id, used_requests, used_tokens, time_us, holdings) "
        "VALUES ($1, 0, 0, {now_us}, '{{}}') ON CONFLICT DO NOTHING",
        [(key_id,) for key_id in sorted(key_ids)],
    )


def save(rates: Iterable[KeyRate]) -> Command:
    """Writes what locked rows have become."""
    return Command(
        "UPDATE key_rate SET used_requests = $2, used_tokens = $3, time_us = $4, holdings = $5 WHERE key_id = $1",
        [
            (
                rate.key_id,
                rate.used_requests,
                rate.used_tokens,
                round(rate.time_s * 1_000_000),
                json.dumps(rate.holdings),
            )
            for rate in rates
        ],
    )


def forget(transaction_limit: int) -> Query:
    """Deletes rows of keys that nobody has used for long, at most so many. Their limits are whole again anyway."""
    return Query(
        "DELETE FROM key_rate WHERE key_id IN (SELECT key_id FROM key_rate "
        "WHERE time_us < {now_us} - CAST($1 AS bigint) LIMIT CAST($2 AS bigint)) RETURNING key_id",
        (round(FORGET_S * 1_000_000), transaction_limit),
    )


def key_rate_from_row(row: Row) -> tuple[KeyRate, float]:
    """A working copy, and the database's time in seconds."""
    key_id, used_requests, used_tokens, time_us, holdings, now_us = row
    rate = KeyRate(
        key_id, float(used_requests), float(used_tokens), time_us / 1e6, holdings_from_json(json.loads(holdings))
    )
    return rate, now_us / 1e6
