"""`tollgate accounts`: the customers."""

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from rich.table import Table

from protos.auth.v1 import auth_pb2
from protos.usage.v1 import usage_pb2
from tollgate import balance
from tollgate.convert import account_from_pb, balance_from_pb
from tollgate.options import Account, AsJson, GraceUsd, RequestId
from tollgate.output import Document, facts, show, table
from tollgate.services import Services, ask, new_request_id

app = typer.Typer(no_args_is_help=True, help="The customers: create, list, suspend.")

_PAGE_SIZE = 1000


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="1 to 100 characters, not used by another account.")],
    as_json: AsJson = False,
    request_id: RequestId = None,
) -> None:
    """Creates an account. Its balance is zero until it is given credit."""

    async def work(services: Services) -> Document:
        request = auth_pb2.CreateAccountRequest(request_id=request_id or new_request_id(), name=name)
        return account_from_pb((await services.call(services.auth_admin.CreateAccount, request)).account)

    show(ask(work), as_json, _account)


@app.command("list")
def list_accounts(as_json: AsJson = False) -> None:
    """Lists all accounts, oldest first."""

    async def work(services: Services) -> Document:
        found: list[Document] = []
        page_token = ""
        while True:
            request = auth_pb2.ListAccountsRequest(page_size=_PAGE_SIZE, page_token=page_token)
            page = await services.call(services.auth_admin.ListAccounts, request)
            found += [account_from_pb(account) for account in page.accounts]
            page_token = page.next_page_token
            if not page_token:
                return {"accounts": found}

    show(
        ask(work),
        as_json,
        lambda document: table(
            ["ACCOUNT", "NAME", "STATE", "CREATED"],
            ([a["account_id"], a["name"], a["state"], a["create_time"]] for a in document["accounts"]),
        ),
    )


@app.command("show")
def show_account(account: Account, as_json: AsJson = False) -> None:
    """Shows one account."""

    async def work(services: Services) -> Document:
        return account_from_pb(await services.account(account))

    show(ask(work), as_json, _account)


@app.command()
def suspend(account: Account, as_json: AsJson = False, request_id: RequestId = None) -> None:
    """Makes every key of an account answer 403, within a second. Open requests finish."""
    _set_state(account, auth_pb2.ACCOUNT_STATE_SUSPENDED, as_json, request_id)


@app.command()
def activate(account: Account, as_json: AsJson = False, request_id: RequestId = None) -> None:
    """Makes a suspended account's keys work again."""
    _set_state(account, auth_pb2.ACCOUNT_STATE_ACTIVE, as_json, request_id)


@app.command()
def terms(account: Account, grace: GraceUsd, as_json: AsJson = False, request_id: RequestId = None) -> None:
    """Sets how far below zero an account may go."""
    if grace < 0:
        raise typer.BadParameter("give 0 or more", param_hint="--grace")

    async def work(services: Services) -> Document:
        account_id = (await services.account(account)).account_id
        request = usage_pb2.SetTermsRequest(
            request_id=request_id or new_request_id(), account_id=account_id, grace_nanousd=grace
        )
        return balance_from_pb((await services.call(services.usage_admin.SetTerms, request)).balance)

    show(ask(work), as_json, balance.render)


def _set_state(account: str, state: auth_pb2.AccountState.ValueType, as_json: bool, request_id: str | None) -> None:
    async def work(services: Services) -> Document:
        found = await services.account(account)
        request = auth_pb2.UpdateAccountRequest(
            request_id=request_id or new_request_id(),
            account=auth_pb2.Account(account_id=found.account_id, state=state),
            update_mask=FieldMask(paths=["state"]),
        )
        return account_from_pb((await services.call(services.auth_admin.UpdateAccount, request)).account)

    show(ask(work), as_json, _account)


def _account(account: Document) -> Table:
    return facts(
        [
            ("Account", account["account_id"]),
            ("Name", account["name"]),
            ("State", account["state"]),
            ("Created", account["create_time"]),
        ]
    )
