"""What a client is told whose request could not be held: metering's refusals as errors of the API."""

from edge.metering.refusals import FundsHeld, FundsUsedUp, MeteringRefusal, MeteringUnavailable
from edge.openai import errors
from edge.openai.errors import RequestError


def error_from_refusal(refusal: MeteringRefusal) -> RequestError:
    """The answer to a refused request."""
    if isinstance(refusal, FundsUsedUp):
        return errors.insufficient_balance("Add credit to the account, then send the request again.")
    if isinstance(refusal, FundsHeld):
        return errors.funds_reserved(retry_after_s=max(1, round(refusal.retry_after_s)))
    assert isinstance(refusal, MeteringUnavailable)
    retry_after_s = max(1, round(refusal.retry_after_s))
    return errors.unavailable("Usage cannot be recorded right now.", retry_after_s=retry_after_s)
