"""Moments as people write them: a date, a date with a time, or a time from now."""

import re
from datetime import UTC, datetime, timedelta

_SPAN = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_EXAMPLES = "write a UTC date such as 2027-01-31, a moment such as 2027-01-31T12:00Z, or a span such as 12h, 90d or 2w"


def moment_after(text: str, now: datetime) -> datetime:
    """A moment to come: `90d` is so much after `now`.

    Raises:
        ValueError: none of the forms; shows them.
    """
    return _moment(text, now, +1)


def moment_before(text: str, now: datetime) -> datetime:
    """A moment past: `90d` is so much before `now`.

    Raises:
        ValueError: none of the forms; shows them.
    """
    return _moment(text, now, -1)


def _moment(text: str, now: datetime, direction: int) -> datetime:
    span = _SPAN.fullmatch(text)
    try:
        if span is not None:
            return now + direction * timedelta(**{_UNITS[span["unit"]]: int(span["count"])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a moment: {_EXAMPLES}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
