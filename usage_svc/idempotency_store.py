"""SQL about idempotency keys."""

from typing import TYPE_CHECKING, NamedTuple

from usage_svc.driver import Query
from usage_svc.sessions import SessionId

if TYPE_CHECKING:
    from usage_svc.idempotency import Claim, StoredAnswer

_EXPIRY = "{now_us} + CAST($7 AS bigint) * 1000000"
_COLUMNS = (
    "account_id, idempotency_key, request_sha256, request_id, spool_uuid, incarnation, expire_time_us, finished, "
    "status_code, content_type, body"
)
_HOLDER = "account_id = $1 AND idempotency_key = $2 AND request_id = $3"


class Held(NamedTuple):
    """A key that is taken."""

    request_sha256: bytes
    request_id: str
    spool_uuid: str
    incarnation: int
    finished: bool
    status_code: int
    content_type: str
    body: bytes
    expired: bool


def insert(wanted: "Claim", ttl_s: int) -> Query:
    """Takes a key that nobody has; no row comes back if somebody has it."""
    return Query(
        f"INSERT INTO idempotency_key ({_COLUMNS}) "  # noqa: S608 - our names
        f"VALUES ($1, $2, $3, $4, $5, $6, {_EXPIRY}, false, 0, '', $8) "
        "ON CONFLICT (account_id, idempotency_key) DO NOTHING RETURNING request_id",
        (*_values(wanted), ttl_s, b""),
    )


def lock(account_id: str, key: str) -> Query:
    """Who has it."""
    return Query(
        "SELECT request_sha256, request_id, spool_uuid, incarnation, finished, status_code, content_type, body, "
        "expire_time_us <= {now_us} FROM idempotency_key WHERE account_id = $1 AND idempotency_key = $2 {for_update}",
        (account_id, key),
    )


def take_over(wanted: "Claim", ttl_s: int) -> Query:
    """Gives a key that was locked to another request."""
    return Query(
        "UPDATE idempotency_key SET request_sha256 = $3, request_id = $4, spool_uuid = $5, incarnation = $6, "  # noqa: S608 - our names
        f"expire_time_us = {_EXPIRY}, finished = false, status_code = 0, content_type = '', body = $8 "
        "WHERE account_id = $1 AND idempotency_key = $2 RETURNING request_id",
        (*_values(wanted), ttl_s, b""),
    )


def release(account_id: str, key: str, request_id: str) -> Query:
    """Frees a key that this request has and has not finished."""
    return Query(
        f"DELETE FROM idempotency_key WHERE {_HOLDER} AND NOT finished RETURNING request_id",  # noqa: S608 - our names
        (account_id, key, request_id),
    )


def keep(account_id: str, key: str, request_id: str, answer: "StoredAnswer") -> Query:
    """Finishes this request's key, with its answer."""
    return Query(
        f"UPDATE idempotency_key SET finished = true, status_code = $4, content_type = $5, body = $6 WHERE {_HOLDER} "  # noqa: S608 - our names
        "AND NOT finished RETURNING request_id",
        (account_id, key, request_id, *answer),
    )


def session_state(session_id: SessionId) -> Query:
    """Where a session stands."""
    return Query(
        "SELECT state FROM session WHERE spool_uuid = $1 AND incarnation = $2",
        (session_id.spool_uuid, session_id.incarnation),
    )


def outcome(day: int, request_id: str) -> Query:
    """How a request ended, if that is known."""
    return Query("SELECT outcome, ending FROM usage_event WHERE day = $1 AND request_id = $2", (day, request_id))


def sweep(count_max: int) -> Query:
    """Forgets keys that have expired."""
    return Query(
        "DELETE FROM idempotency_key WHERE (account_id, idempotency_key) IN (SELECT account_id, idempotency_key "
        "FROM idempotency_key WHERE expire_time_us <= {now_us} ORDER BY expire_time_us LIMIT $1) RETURNING request_id",
        (count_max,),
    )


def _values(wanted: "Claim") -> tuple[str, str, bytes, str, str, int]:
    spool_uuid, incarnation = wanted.session_id.spool_uuid, wanted.session_id.incarnation
    return wanted.account_id, wanted.key, wanted.request_sha256, wanted.request_id, spool_uuid, incarnation
