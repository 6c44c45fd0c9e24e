"""`tollgate balance`: where an account stands, and what moved it there."""

from typing import Annotated

import typer
from rich.console import Group, RenderableType

from protos.usage.v1 import usage_pb2
from tollgate.convert import balance_from_pb, entry_from_pb
from tollgate.options import Account, AsJson
from tollgate.output import Document, facts, show, table
from tollgate.services import Services, ask


def balance(
    account: Account,
    as_json: AsJson = False,
    entries: Annotated[
        int, typer.Option("--entries", help="Also the newest entries of its ledger, at most so many.", min=0, max=1000)
    ] = 0,
) -> None:
    """Shows what an account has, what is held for requests in flight, and what it has spent."""

    async def work(services: Services) -> Document:
        found = await services.account(account)
        request = usage_pb2.GetBalanceRequest(account_id=found.account_id)
        document = balance_from_pb((await services.call(services.usage.GetBalance, request)).balance)
        document["account_name"] = found.name
        if entries:
            listing = usage_pb2.ListEntriesRequest(account_id=found.account_id, page_size=entries)
            page = await services.call(services.usage.ListEntries, listing)
            document["entries"] = [entry_from_pb(entry) for entry in page.entries]
        return document

    show(ask(work), as_json, render)


def render(document: Document) -> RenderableType:
    """A balance for people."""
    name = document.get("account_name")
    pairs = facts(
        [
            ("Account", f"{document['account_id']}{f' ({name})' if name else ''}"),
            ("Balance", f"{document['posted_usd']} USD"),
            ("  in leases", f"{document['reserved_usd']} USD"),
            ("  available", f"{document['available_usd']} USD, and {document['grace_usd']} USD of grace"),
            ("Credited", f"{document['credited_usd']} USD"),
            ("Charged", f"{document['charged_usd']} USD"),
            *([("Refunded", f"{document['refunded_usd']} USD")] if document["refunded_nanousd"] else []),
        ]
    )
    if "entries" not in document:
        return pairs
    listed = table(
        ["POSTED", "KIND", "USD", "FOR", "NOTE"],
        (
            [
                entry["create_time"],
                entry["kind"],
                entry["amount_usd"]
                if entry["credit_account_id"] == document["account_id"]
                else f"-{entry['amount_usd']}",
                entry["request_id"] or "",
                entry["note"] or "",
            ]
            for entry in document["entries"]
        ),
        right=["USD"],
    )
    return Group(pairs, "", listed)
