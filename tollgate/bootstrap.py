"""`tollgate bootstrap`: what an empty installation needs before somebody can ask it something. For trying it out."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from tollgate.demo import ACCOUNT_NAME, prepare_demo
from tollgate.failure import CommandFailed
from tollgate.keys import read_secret
from tollgate.models import apply_document, read_document
from tollgate.options import AsJson
from tollgate.output import Document, facts, show
from tollgate.services import Services, ask, new_request_id

_RETRY_INTERVAL_S = 1.0


def bootstrap(
    catalog: Annotated[str, typer.Option("--catalog", help="The catalog document to apply.", metavar="FILE")],
    secret_file: Annotated[
        Path, typer.Option("--secret-file", help="The secret of the demo account's key: a file, or - for input.")
    ],
    wait_s: Annotated[
        float, typer.Option("--wait-s", help="How long to wait for services that are only starting.", min=0)
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Applies a catalog, and makes the demo account with some credit and a key that you bring. Safe to repeat."""
    document, secret = read_document(catalog), read_secret(secret_file)
    end_s = time.monotonic() + wait_s

    async def work(services: Services) -> Document:
        told = ""
        while True:
            try:
                return await _set_up(services, document, secret)
            except CommandFailed as failure:
                if failure.reason != "SERVICE_UNREACHABLE" or time.monotonic() > end_s:
                    raise
                # Else whoever looks at a job's log sees nothing while it waits.
                if failure.message != told:
                    typer.echo(f"waiting: {failure.message}", err=True)
                    told = failure.message
                await asyncio.sleep(_RETRY_INTERVAL_S)

    show(
        ask(work),
        as_json,
        lambda done: facts(
            [("Catalog", f"snapshot {done['snapshot']}"), ("Account", f"{ACCOUNT_NAME}, {done['balance_usd']} USD")]
        ),
    )


async def _set_up(services: Services, document: str, secret: str) -> Document:
    applied = await apply_document(services, document, dry_run=False, request_id=new_request_id())
    demo = await prepare_demo(services, secret)
    return {"snapshot": applied["number"], "account": ACCOUNT_NAME, "balance_usd": demo.balance_usd}
