"""Why a request is not admitted.

MeteringRefusal
+-- FundsUsedUp           402: the account must be topped up
+-- FundsHeld             429: requests in flight hold what is left
+-- MeteringUnavailable   503: this edge cannot meter now
"""

from enum import Enum

from edge.metering import metrics


class UnavailableReason(Enum):
    """Why this edge cannot meter now; the values are label values of a metric."""

    SESSION_EXPIRED = "session_expired"  # no heartbeat was acknowledged for too long, or the session was fenced
    USAGE_UNREACHABLE = "usage_unreachable"  # funds are needed, and usage_svc cannot be asked for them
    SPOOL_FULL = "spool_full"  # the spool has reached its bound
    SPOOL_UNWRITABLE = "spool_unwritable"  # the disk refuses


class MeteringRefusal(Exception):
    """A request that must not be forwarded. Raise a subclass."""


class FundsUsedUp(MeteringRefusal):
    """Waiting does not help. `available_nanousd` is what is left beyond all leases, grace included."""

    def __init__(self, available_nanousd: int) -> None:
        super().__init__("the account's funds are used up")
        self.available_nanousd = available_nanousd


class FundsHeld(MeteringRefusal):
    """Funds come back when requests in flight end."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("the account's remaining funds are held for requests in flight")
        self.retry_after_s = retry_after_s


class MeteringUnavailable(MeteringRefusal):
    """Not the account's fault."""

    def __init__(self, reason: UnavailableReason, retry_after_s: float) -> None:
        super().__init__(f"metering is unavailable: {reason.value}")
        self.reason = reason
        self.retry_after_s = retry_after_s


def count_refusal(refusal: MeteringRefusal) -> None:
    """In the metric of requests that were not admitted."""
    if isinstance(refusal, MeteringUnavailable):
        metrics.ADMISSIONS_REFUSED.labels(refusal.reason.value).inc()
    elif isinstance(refusal, FundsUsedUp):
        metrics.ADMISSIONS_REFUSED.labels("funds_used_up").inc()
    elif isinstance(refusal, FundsHeld):
        metrics.ADMISSIONS_REFUSED.labels("funds_held").inc()
