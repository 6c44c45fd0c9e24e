"""`tollgate sessions`: the edges' metering sessions, and releasing what one left that does not come back."""

from typing import Annotated

import typer
from rich.table import Table

from pricing.usd import usd_from_nanousd
from protos.usage.v1 import usage_pb2
from tollgate.convert import session_from_pb
from tollgate.options import AsJson
from tollgate.output import Document, show, table
from tollgate.services import Services, ask

app = typer.Typer(help="Metering sessions of edges.", no_args_is_help=True)


@app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=1000)] = 100,
    as_json: AsJson = False,
) -> None:
    """Shows the sessions that may still reserve funds, the longest silent first."""

    async def work(services: Services) -> Document:
        request = usage_pb2.ListSessionsRequest(page_size=limit)
        response = await services.call(services.usage_admin.ListSessions, request)
        return {"sessions": [session_from_pb(each) for each in response.sessions]}

    show(ask(work), as_json, _table)


@app.command()
def force(
    spool: Annotated[str, typer.Argument(help="The spool's uuid, as `sessions list` shows it.", metavar="SPOOL")],
    incarnation: Annotated[int, typer.Argument(help="Its incarnation.", metavar="INCARNATION", min=1)],
    as_json: AsJson = False,
) -> None:
    """Releases what a lost session still reserves, though its spool never came.

    Do it only once its machine and disk are gone for good. What the spool brings all the same is charged, labelled as
    overflow, and may then go beyond an account's grace.
    """

    async def work(services: Services) -> Document:
        session = usage_pb2.Session(spool_uuid=spool, incarnation=incarnation)
        request = usage_pb2.ForceSessionRequest(session=session)
        released = (await services.call(services.usage_admin.ForceSession, request)).released_nanousd
        return {"released_nanousd": released, "released_usd": usd_from_nanousd(released)}

    show(ask(work), as_json, lambda document: f"Released {document['released_usd']} USD.")


def _table(document: Document) -> Table:
    return table(
        ["SPOOL", "INCARNATION", "STATE", "EDGE", "LAST HEARTBEAT (UTC)", "NEXT RECORD", "RESERVED USD"],
        (
            [
                each["spool_uuid"],
                str(each["incarnation"]),
                each["state"],
                each["edge_name"],
                each["heartbeat_time"] or "",
                f"{each['next_seq']:,}",
                each["reserved_usd"],
            ]
            for each in document["sessions"]
        ),
        right=["INCARNATION", "NEXT RECORD", "RESERVED USD"],
    )
