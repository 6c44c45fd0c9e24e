"""The limits of a key, as options of `tollgate keys create` and `tollgate keys update`, and for people to read."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from pricing.usd import nanousd_from_usd
from protos.auth.v1 import auth_pb2
from tollgate.output import Document

CUSTOM = "custom"


class SpendPeriod(StrEnum):
    """When a spend limit begins anew, in UTC."""

    DAY = "day"
    MONTH = "month"


def _spend_usd(text: str) -> int:
    try:
        return nanousd_from_usd(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Tier = Annotated[
    str | None,
    typer.Option("--tier", help="The operator's preset of limits, such as developer or production.", metavar="TIER"),
]
RequestsPerMinute = Annotated[
    int | None, typer.Option("--requests-per-minute", help="Most requests within a minute; 0: no limit.", min=0)
]
TokensPerMinute = Annotated[
    int | None, typer.Option("--tokens-per-minute", help="Most tokens within a minute; 0: no limit.", min=0)
]
ConcurrentRequests = Annotated[
    int | None, typer.Option("--concurrent-requests", help="Most requests open at once; 0: no limit.", min=0)
]
SpendLimit = Annotated[
    int | None,
    typer.Option(
        "--spend-limit", help="The most that it may spend in a period; 0: no limit.", metavar="USD", parser=_spend_usd
    ),
]
Period = Annotated[
    SpendPeriod | None,
    typer.Option("--spend-period", help="A day or a month of UTC; without: a month.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """What was given of them; None where an option was left out."""

    tier: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None
    spend_limit_nanousd: int | None
    spend_period: SpendPeriod | None

    def __post_init__(self) -> None:
        if self.tier not in (None, CUSTOM) and self._numbers():
            raise typer.BadParameter("give either --tier or numbers of its own", param_hint="--tier")
        if self.spend_limit_nanousd is not None and self.spend_limit_nanousd < 0:
            raise typer.BadParameter("give 0 or more", param_hint="--spend-limit")
        if self.spend_limit_nanousd == 0 and self.spend_period is not None:
            raise typer.BadParameter("there is no period without a limit", param_hint="--spend-period")

    def paths(self) -> list[str]:
        """The fields of a key that they change."""
        limits = ["limits"] if self.tier is not None or self._numbers() else []
        spend = ["spend_limit"] if self.spend_limit_nanousd is not None or self.spend_period is not None else []
        return limits + spend

    def apply(self, key: auth_pb2.Key, before: auth_pb2.Key) -> None:
        """Sets what they say, and leaves the rest as it was.

        Raises:
            BadParameter: a period, where there is no limit.
        """
        paths = self.paths()
        if "limits" in paths:
            if self.tier in (None, CUSTOM):
                key.limits.CopyFrom(before.limits)
                for name, value in self._numbers().items():
                    setattr(key.limits, name, value)
            key.limits.tier = self.tier or ""
        if "spend_limit" in paths and self.spend_limit_nanousd != 0:
            key.spend_limit.CopyFrom(before.spend_limit)
            if self.spend_limit_nanousd is not None:
                key.spend_limit.limit_nanousd = self.spend_limit_nanousd
            if self.spend_period is not None:
                key.spend_limit.period = auth_pb2.SpendPeriod.Value(f"SPEND_PERIOD_{self.spend_period.name}")
            if not key.spend_limit.limit_nanousd:
                raise typer.BadParameter("give --spend-limit too", param_hint="--spend-period")
            key.spend_limit.period = key.spend_limit.period or auth_pb2.SPEND_PERIOD_MONTH

    def _numbers(self) -> dict[str, int]:
        return {
            name: value
            for name in ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
            if (value := getattr(self, name)) is not None
        }


def limits_for_people(key: Document) -> str:
    """A key's limits in one line."""
    limits = key["limits"]
    if limits is None:
        return "none"
    numbers = [
        f"{limits[name]:,} {unit}"
        for name, unit in (
            ("requests_per_minute", "requests/min"),
            ("tokens_per_minute", "tokens/min"),
            ("concurrent_requests", "at once"),
        )
        if limits[name]
    ]
    return f"{', '.join(numbers) or 'none'} ({limits['tier']})"


def spend_limit_for_people(key: Document) -> str:
    """A key's spend limit in one line."""
    limit = key["spend_limit"]
    return "none" if limit is None else f"{limit['limit_usd']} USD a {limit['period']}"
