"""Idempotency keys on the wire, and what their fields may hold."""

import re

from chassis.faults import InvalidArgument
from protos.usage.v1 import usage_pb2 as pb
from usage_svc import bounds, idempotency
from usage_svc.convert import session_id_from_pb
from usage_svc.idempotency import Claim, Claimed, StoredAnswer
from usage_svc.rating import day_of

_KEY = re.compile(rf"[ -~]{{1,{idempotency.MAX_KEY_CHARS}}}")
_OUTCOMES = {
    idempotency.CLAIMED: pb.CLAIM_OUTCOME_CLAIMED,
    idempotency.IN_FLIGHT: pb.CLAIM_OUTCOME_IN_FLIGHT,
    idempotency.FINISHED: pb.CLAIM_OUTCOME_FINISHED,
    idempotency.MISMATCH: pb.CLAIM_OUTCOME_MISMATCH,
}


def claim_from_pb(message: pb.ClaimIdempotencyKeyRequest) -> Claim:
    """A claim that can be kept.

    Raises:
        InvalidArgument: names the field.
    """
    if len(message.request_sha256) != idempotency.SHA256_BYTES:
        raise InvalidArgument("request_sha256", f"give the {idempotency.SHA256_BYTES} bytes of a SHA-256")
    account_id, key, request_id = holder_from_pb(message)
    session_id = bounds.session_id(session_id_from_pb(message.session))
    return Claim(account_id, key, message.request_sha256, request_id, session_id)


def holder_from_pb(message: pb.ClaimIdempotencyKeyRequest | pb.FinishIdempotencyKeyRequest) -> tuple[str, str, str]:
    """Whose key it is, the key, and the request that holds it or wants to.

    Raises:
        InvalidArgument: names the field.
    """
    account_id = bounds.account_id(message.account_id)
    if _KEY.fullmatch(message.idempotency_key) is None:
        raise InvalidArgument("idempotency_key", f"give 1 to {idempotency.MAX_KEY_CHARS} printable characters of ASCII")
    if day_of(message.request_id) is None:
        raise InvalidArgument("request_id", "give a UUIDv7 in lower case with hyphens")
    return account_id, message.idempotency_key, message.request_id


def answer_from_pb(message: pb.StoredAnswer) -> StoredAnswer:
    """An answer that can be kept.

    Raises:
        InvalidArgument: names the field.
    """
    if not 100 <= message.status_code <= 599:
        raise InvalidArgument("answer.status_code", f"{message.status_code} is not an HTTP status")
    if len(message.body) > idempotency.MAX_BODY_BYTES:
        raise InvalidArgument("answer.body", f"keep at most {idempotency.MAX_BODY_BYTES} bytes")
    content_type = bounds.text("answer.content_type", message.content_type, idempotency.MAX_CONTENT_TYPE_CHARS)
    return StoredAnswer(message.status_code, content_type, message.body)


def claimed_to_pb(claimed: Claimed) -> pb.ClaimIdempotencyKeyResponse:
    answer = None if claimed.answer is None else pb.StoredAnswer(**claimed.answer._asdict())
    return pb.ClaimIdempotencyKeyResponse(
        outcome=_OUTCOMES[claimed.outcome], request_id=claimed.request_id, answer=answer
    )
