"""`tollgate audit`: proves that the ledger is right, on a live system."""

from typing import Annotated

import typer
from rich.console import Group, RenderableType

from protos.usage.v1 import usage_pb2
from tollgate.convert import audit_from_pb
from tollgate.failure import CommandFailed
from tollgate.options import AsJson
from tollgate.output import Document, facts, show
from tollgate.services import Services, ask


def audit(
    account: Annotated[
        str, typer.Option("--account", help="Only this account, by id or name.", metavar="ACCOUNT")
    ] = "",
    timeout_s: Annotated[float, typer.Option("--timeout", help="How long it may take, in seconds.", min=1)] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Replays the ledger from zero and compares it with every balance, lease and request. Stops nothing.

    Ends with status 1 where something does not hold.
    """

    async def work(services: Services) -> Document:
        account_id = (await services.account(account)).account_id if account else ""
        request = usage_pb2.AuditLedgerRequest(account_id=account_id)
        return audit_from_pb(await services.call(services.usage_admin.AuditLedger, request, timeout_s=timeout_s))

    document = ask(work)
    show(document, as_json, render)
    if document["violations"]:
        first = document["violations"][0]
        raise CommandFailed(
            "LEDGER_VIOLATION", f"{first['invariant']} does not hold for {first['subject']}: {first['message']}"
        )


def render(document: Document) -> RenderableType:
    """What was checked, for people."""
    broken = {violation["invariant"] for violation in document["violations"]}

    def verdict(invariant: str) -> str:
        return "DOES NOT HOLD" if invariant in broken else "holds"

    pairs = facts(
        [
            ("As of", f"{document['snapshot_time']}, by the database's clock"),
            ("I1 solvency", f"{verdict('I1')}: {document['accounts_checked']:,} accounts"),
            (
                "I4 conservation",
                f"{verdict('I4')}: {document['entries_checked']:,} entries replayed, {document['leases_checked']:,} "
                f"leases ({document['open_leases']:,} open)",
            ),
            (
                "I5 one charge per request",
                f"{verdict('I5')}: {document['requests_checked']:,} requests, {document['requests_rated']:,} of them "
                "rated again",
            ),
            ("Credited", f"{document['credited_usd']} USD"),
            ("Charged", f"{document['charged_usd']} USD"),
            ("Available", f"{document['available_usd']} USD, and {document['reserved_usd']} USD in leases"),
            ("Overflow", f"{document['overflow_usd']} USD labelled"),
            ("Overdraft", f"{document['overdraft_max_usd']} USD beyond its grace at most, of any account"),
        ]
    )
    if not document["violations"]:
        return Group(pairs, "", "All holds.")
    found = [f"{each['invariant']}  {each['subject']}: {each['message']}" for each in document["violations"]]
    return Group(pairs, "", *found)
