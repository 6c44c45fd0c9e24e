"""How much a key may ask for and spend: numbers of its own, or those of a preset that the operator named."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from chassis.faults import InvalidArgument

REQUESTS_PER_MINUTE_MAX = 10**7
TOKENS_PER_MINUTE_MAX = 10**12
CONCURRENT_REQUESTS_MAX = 10**6
SPEND_LIMIT_NANOUSD_MAX = 10**18
TIER_CHARS_MAX = 50
CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may ask for; 0 means no limit of this kind.

    As stored, `tier` names a preset and the numbers are 0, or it is empty or "custom" and the numbers hold.
    """

    tier: str = ""
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent_requests: int = 0


NO_LIMITS = KeyLimits()

Tiers = Mapping[str, KeyLimits]  # by name; each as it is answered: with its name and its numbers


class SpendPeriod(Enum):
    """When a spend limit begins anew, in UTC. The values are stored."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """The most that a key may spend in each period."""

    limit_nanousd: int
    period: SpendPeriod


def validated_limits(field: str, limits: KeyLimits, tiers: Tiers) -> KeyLimits:
    """Limits in the form in which they are stored.

    Raises:
        InvalidArgument: a number out of bounds, a preset that does not exist, or numbers that are not its own.
    """
    for name, value, most in (
        ("requests_per_minute", limits.requests_per_minute, REQUESTS_PER_MINUTE_MAX),
        ("tokens_per_minute", limits.tokens_per_minute, TOKENS_PER_MINUTE_MAX),
        ("concurrent_requests", limits.concurrent_requests, CONCURRENT_REQUESTS_MAX),
    ):
        if not 0 <= value <= most:
            raise InvalidArgument(f"{field}.{name}", f"{value}: give 1 to {most}, or 0 for no limit")
    if limits.tier in ("", CUSTOM):
        return NO_LIMITS if replace(limits, tier="") == NO_LIMITS else replace(limits, tier=CUSTOM)
    preset = tiers.get(limits.tier)
    if preset is None:
        known = ", ".join([*tiers, CUSTOM])
        raise InvalidArgument(f"{field}.tier", f"{limits.tier[:100]!r} does not exist: give one of {known}")
    if limits not in (preset, KeyLimits(limits.tier)):
        raise InvalidArgument(
            f"{field}.tier", f"{limits.tier!r} has its own numbers: leave the numbers out, or give the tier {CUSTOM!r}"
        )
    return KeyLimits(limits.tier)


def validated_spend_limit(field: str, limit: SpendLimit | None) -> SpendLimit | None:
    """A spend limit as it was given.

    Raises:
        InvalidArgument: the amount is out of bounds.
    """
    if limit is not None and not 1 <= limit.limit_nanousd <= SPEND_LIMIT_NANOUSD_MAX:
        raise InvalidArgument(
            f"{field}.limit_nanousd",
            f"{limit.limit_nanousd}: give 1 to {SPEND_LIMIT_NANOUSD_MAX} nano-USD, or leave the limit out",
        )
    return limit


def effective(limits: KeyLimits, tiers: Tiers) -> KeyLimits:
    """What holds now: of stored limits, with the numbers of their preset. The service starts only where it exists."""
    return limits if limits.tier in ("", CUSTOM) else tiers[limits.tier]
