"""`tollgate usage`: what an account consumed, and what that cost."""

import os
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import RenderableType

from protos.usage.v1 import usage_pb2
from tollgate.convert import timestamp_from_datetime, usage_row_from_pb
from tollgate.moments import moment_before
from tollgate.options import AsJson
from tollgate.output import Document, show, table
from tollgate.process import become
from tollgate.processes import SERVICES, Service
from tollgate.services import Services, ask


class Grouping(StrEnum):
    """What sums are made over."""

    HOUR = "hour"
    DAY = "day"
    MODEL = "model"
    KEY = "key"


_DATABASE_URL = "TOLLGATE_USAGE_DATABASE_URL"
_NUMBERS = ["REQUESTS", "ERRORS", "PROMPT", "CACHED", "COMPLETION", "REASONING", "USD"]


def usage(
    account: Annotated[
        str | None, typer.Argument(help="The account's id or name. Without it: runs usage_svc.", show_default=False)
    ] = None,
    by: Annotated[
        list[Grouping], typer.Option("--by", help="Sum by hour or day, by model, by key; may be repeated.")
    ] = [Grouping.MODEL],  # noqa: B006 - typer copies it
    since: Annotated[
        str | None, typer.Option("--since", help="From then on: 2027-01-31, or 24h for the last day.", metavar="WHEN")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Before then.", metavar="WHEN")] = None,
    model: Annotated[str, typer.Option("--model", help="Only this model.", metavar="MODEL")] = "",
    key: Annotated[str, typer.Option("--key", help="Only this key.", metavar="KEY_ID")] = "",
    as_json: AsJson = False,
) -> None:
    """Sums an account's requests, tokens and charges. Without an account: runs usage_svc, by TOLLGATE_USAGE_..."""
    if account is None:
        if not os.environ.get(_DATABASE_URL):
            raise typer.BadParameter(f"name one; or, to run usage_svc, set {_DATABASE_URL}", param_hint="ACCOUNT")
        become(SERVICES[Service.USAGE].package)
    if len(set(by)) != len(by) or {Grouping.HOUR, Grouping.DAY} <= set(by):
        raise typer.BadParameter("give each once, and hour or day but not both", param_hint="--by")
    start, end = _moment(since, "--since"), _moment(until, "--until")
    if start and end and end <= start:
        raise typer.BadParameter("is not after --since", param_hint="--until")

    async def work(services: Services) -> Document:
        found = await services.account(account)
        request = usage_pb2.QueryUsageRequest(
            account_id=found.account_id,
            start_time=timestamp_from_datetime(start) if start else None,
            end_time=timestamp_from_datetime(end) if end else None,
            group_by=[usage_pb2.UsageGrouping.Value(f"USAGE_GROUPING_{each.name}") for each in by],
            model_id=model,
            key_id=key,
        )
        response = await services.call(services.usage.QueryUsage, request)
        return {"account_id": found.account_id, "rows": [usage_row_from_pb(row) for row in response.rows]}

    show(ask(work), as_json, lambda document: _table(document, by))


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        return moment_before(text, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _table(document: Document, by: list[Grouping]) -> RenderableType:
    if not document["rows"]:
        return "Nothing was used."
    groups = []
    if Grouping.HOUR in by or Grouping.DAY in by:
        groups.append(("FROM (UTC)", "period_start_time"))
    if Grouping.MODEL in by:
        groups.append(("MODEL", "model_id"))
    if Grouping.KEY in by:
        groups.append(("KEY", "key_id"))
    return table(
        [*(heading for heading, _ in groups), *_NUMBERS],
        (
            [
                *(row[field] or "" for _, field in groups),
                *(
                    f"{count:,}"
                    for count in (
                        row["requests"],
                        row["errors"],
                        row["tokens"]["prompt_tokens"],
                        row["tokens"]["cached_tokens"],
                        row["tokens"]["completion_tokens"],
                        row["tokens"]["reasoning_tokens"],
                    )
                ),
                row["charged_usd"],
            ]
            for row in document["rows"]
        ),
        right=_NUMBERS,
    )
