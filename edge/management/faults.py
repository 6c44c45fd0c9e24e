"""What a service refused, as the customer is told: in the API's own words, under the API's own names of fields."""

from chassis.faults import (
    DeadlineExceeded,
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from chassis.log import logger
from edge.management import refusals
from edge.management.shapes import CHOICES
from edge.openai import errors
from edge.openai.errors import RequestError

RETRY_AFTER_S = 1

_log = logger(__name__)

# The contract's fields by the API's, the longer before what they begin with.
_PARAMS = {
    "key.log_retention_days": "retention_days",
    "key.allowed_models": "models",
    "key.expire_time": "expires_at",
    "key.spend_limit.limit_nanousd": "spend_limit.amount_usd",
    "key.": "",
    "expire_time": "expires_at",
    "overlap": "overlap_seconds",
    "after_key_id": "after",
    "after_request_id": "after",
    "model_id": "model",
    "key_id": "key",
    "end_time": "to",
}


def request_error(fault: Fault) -> RequestError:
    """The answer to a request that a service refused."""
    match fault:
        case InvalidArgument():
            violation = fault.violations[0] if fault.violations else None
            param = _param(violation.field) if violation else None
            message = violation.message if violation else fault.message
            if param == "spend_limit.amount_usd":  # the service counts in nano-USD
                message = CHOICES["amount_usd"]
            return errors.invalid_request(f"`{param}`: {message}." if param else f"{message}.", param=param)
        case NotFound():
            return refusals.resource_not_found()
        case PermissionDenied(reason="MANAGER_NOT_WORKING"):  # revoked between two looks
            return errors.invalid_api_key()
        case PermissionDenied(reason="MANAGER_SUSPENDED"):
            return errors.permission_denied("This account is suspended. Contact the operator of this service.")
        case PermissionDenied():
            return errors.permission_denied("This API key cannot manage keys.")
        case FailedPrecondition(reason="LAST_MANAGEMENT_KEY"):
            return refusals.last_management_key()
        case FailedPrecondition(reason="KEY_REVOKED" | "KEY_EXPIRED"):
            return refusals.key_not_working(fault.message)
        case ResourceExhausted(reason="TOO_MANY_KEYS"):
            return refusals.too_many_keys(fault.message)
        case ResourceExhausted(reason="TOO_MANY_ROWS"):
            return errors.invalid_request(f"The answer would have {fault.message}.", param="group_by")
        case ResourceExhausted(reason="TOO_MANY_DELETIONS"):
            return errors.invalid_request(f"{fault.message[:1].upper()}{fault.message[1:]}.")
        case Unavailable() | DeadlineExceeded() | Unimplemented():
            _log.warning("management waits for a service", reason=fault.reason)
            return errors.unavailable("This cannot be asked or changed right now.", retry_after_s=RETRY_AFTER_S)
        case _:
            _log.error("management call failed", reason=fault.reason, message=fault.message)
            return errors.internal_error()


def _param(field: str) -> str:
    for theirs, ours in _PARAMS.items():
        if field.startswith(theirs):
            return ours + field.removeprefix(theirs)
    return field
