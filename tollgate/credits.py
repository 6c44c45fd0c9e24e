"""`tollgate credits`: putting money in, and correcting it."""

from typing import Annotated

import typer

from protos.usage.v1 import usage_pb2
from tollgate import balance
from tollgate.convert import balance_from_pb, request_from_pb
from tollgate.options import Account, AsJson, OptionalUsd, RequestId, Usd
from tollgate.output import Document, show
from tollgate.services import Services, ask, new_request_id

app = typer.Typer(no_args_is_help=True, help="Money in, and corrections.")

Note = Annotated[str, typer.Option("--note", help="For people, kept in the ledger; at most 500 characters.")]


@app.command()
def grant(
    account: Account,
    amount: Usd,
    promotion: Annotated[bool, typer.Option("--promotion", help="A gift: booked against promo_expense.")] = False,
    note: Note = "",
    as_json: AsJson = False,
    request_id: RequestId = None,
) -> None:
    """Gives an account credit."""
    if amount <= 0:
        raise typer.BadParameter("give more than zero; `tollgate credits adjust` takes away", param_hint="USD")

    async def work(services: Services) -> Document:
        found = await services.account(account)
        request = usage_pb2.GrantCreditRequest(
            request_id=request_id or new_request_id(),
            account_id=found.account_id,
            amount_nanousd=amount,
            kind=usage_pb2.ENTRY_KIND_PROMOTION if promotion else usage_pb2.ENTRY_KIND_CREDIT,
            note=note,
        )
        granted = balance_from_pb((await services.call(services.usage_admin.GrantCredit, request)).balance)
        return {**granted, "account_name": found.name}

    show(ask(work), as_json, balance.render)


# A negative amount looks like an option: what is not one of ours is taken as an argument.
@app.command(context_settings={"ignore_unknown_options": True})
def adjust(
    account: Account,
    amount: Usd,
    note: Annotated[str, typer.Option("--note", help="Why; kept in the ledger; 1 to 500 characters.")],
    force: Annotated[
        bool, typer.Option("--force", help="Take away even what crosses the grace; labelled in the ledger.")
    ] = False,
    as_json: AsJson = False,
    request_id: RequestId = None,
) -> None:
    """Corrects a balance in either direction; a negative amount takes away."""
    if amount == 0:
        raise typer.BadParameter("give an amount that is not zero", param_hint="USD")

    async def work(services: Services) -> Document:
        found = await services.account(account)
        request = usage_pb2.AdjustRequest(
            request_id=request_id or new_request_id(),
            account_id=found.account_id,
            amount_nanousd=amount,
            force=force,
            note=note,
        )
        adjusted = balance_from_pb((await services.call(services.usage_admin.Adjust, request)).balance)
        return {**adjusted, "account_name": found.name}

    show(ask(work), as_json, balance.render)


@app.command()
def refund(
    account: Account,
    charged_request: Annotated[
        str, typer.Argument(help="The request that was charged: its x-request-id.", metavar="REQUEST")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; the customer reads it; 1 to 500 characters.")],
    amount: OptionalUsd = None,
    as_json: AsJson = False,
    request_id: RequestId = None,
) -> None:
    """Gives a request's charge back, whole or in part."""
    if amount is not None and amount <= 0:
        raise typer.BadParameter("give more than zero, or leave it out for all that is left", param_hint="--amount")

    async def work(services: Services) -> Document:
        found = await services.account(account)
        request = usage_pb2.RefundRequest(
            request_id=request_id or new_request_id(),
            account_id=found.account_id,
            charged_request_id=charged_request,
            amount_nanousd=amount or 0,
            reason=reason,
        )
        answer = await services.call(services.usage_admin.Refund, request)
        return {
            **balance_from_pb(answer.balance),
            "account_name": found.name,
            "request": request_from_pb(answer.request),
        }

    show(ask(work), as_json, balance.render)
