"""Options and arguments that several commands have, so that each is spelt and explained once."""

from typing import Annotated

import typer

from pricing.usd import nanousd_from_usd


def _usd(text: str) -> int:
    try:
        return nanousd_from_usd(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; money as integer nano-USD and as a decimal.")]
RequestId = Annotated[
    str | None,
    typer.Option("--request-id", help="Repeat a write safely: the same id returns the first answer.", metavar="ID"),
]
Account = Annotated[str, typer.Argument(help="The account's id or name.", metavar="ACCOUNT")]
Key = Annotated[str, typer.Argument(help="The key's id, as `tollgate keys list` shows it.", metavar="KEY_ID")]
Model = Annotated[str, typer.Argument(help="The model's id.", metavar="MODEL")]
Usd = Annotated[int, typer.Argument(help="An exact amount in USD, such as 5.00.", metavar="USD", parser=_usd)]
GraceUsd = Annotated[
    int, typer.Option("--grace", help="How far below zero the account may go, in USD.", metavar="USD", parser=_usd)
]
OptionalUsd = Annotated[
    int | None,
    typer.Option("--amount", help="An exact amount in USD; everything unless given.", metavar="USD", parser=_usd),
]
