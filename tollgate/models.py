"""`tollgate models`: the catalog."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from protos.catalog.v1 import catalog_pb2
from tollgate.convert import change_from_pb, model_from_pb
from tollgate.failure import CommandFailed
from tollgate.money import usd_per_million
from tollgate.options import AsJson, Model, RequestId
from tollgate.output import Document, facts, show, table
from tollgate.refusals import refusals
from tollgate.services import Services, ask, new_request_id

app = typer.Typer(no_args_is_help=True, help="The catalog: models, prices, deployments.")

app.command("refusals")(refusals)

_BEGINNING = "1970-01-01T00:00:00Z"  # what catalog_svc makes of a price without a date
_MARKS = {"added": "+", "changed": "~", "removed": "-"}


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Lists all models with their prices and with what serves them."""

    async def work(services: Services) -> Document:
        snapshot = (await services.call(services.catalog.GetSnapshot, catalog_pb2.GetSnapshotRequest())).snapshot
        now = datetime.now(UTC)
        return {
            "number": snapshot.number,
            "models": [model_from_pb(model, list(snapshot.deployments), now) for model in snapshot.models],
        }

    show(
        ask(work),
        as_json,
        lambda document: table(
            ["MODEL", "CONTEXT", "INPUT $/1M", "CACHED $/1M", "OUTPUT $/1M", "SERVED BY"],
            (
                [model["model_id"], f"{model['context_length']:,}", *_prices(model["price"]), _served_by(model)]
                for model in document["models"]
            ),
            right=["CONTEXT", "INPUT $/1M", "CACHED $/1M", "OUTPUT $/1M"],
        ),
    )


@app.command("show")
def show_model(model_id: Model, as_json: AsJson = False) -> None:
    """Shows one model, all its prices, and the deployments that serve it."""

    async def work(services: Services) -> Document:
        request = catalog_pb2.GetModelRequest(model_id=model_id)
        response = await services.call(services.catalog.GetModel, request)
        return model_from_pb(response.model, list(response.deployments), datetime.now(UTC))

    show(ask(work), as_json, _model)


@app.command()
def document(as_json: AsJson = False) -> None:
    """Prints the document that made the catalog: edit it, and apply it again."""

    async def work(services: Services) -> Document:
        response = await services.call(services.catalog_admin.GetDocument, catalog_pb2.GetDocumentRequest())
        return {"number": response.number, "document": response.document}

    found = ask(work)
    if as_json:
        show(found, True, lambda _: "")
    else:
        print(found["document"], end="")


@app.command()
def apply(
    file: Annotated[str, typer.Argument(help="The catalog document (YAML), or - for standard input.", metavar="FILE")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    as_json: AsJson = False,
    request_id: RequestId = None,
) -> None:
    """Makes the catalog equal to a document; edges follow within a second. A bad document changes nothing."""
    text = read_document(file)

    async def work(services: Services) -> Document:
        return await apply_document(services, text, dry_run=dry_run, request_id=request_id or new_request_id())

    show(ask(work), as_json, _applied)


def read_document(file: str) -> str:
    """A catalog document's text.

    Raises:
        CommandFailed: it cannot be read, or is not UTF-8 (FILE_UNREADABLE).
    """
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CommandFailed("FILE_UNREADABLE", f"cannot read the catalog document {file}: {reason}") from None


async def apply_document(services: Services, text: str, *, dry_run: bool, request_id: str) -> Document:
    """Applies a document.

    Raises:
        InvalidArgument: the document is bad (CATALOG_INVALID), with one violation for each of its faults.
    """
    request = catalog_pb2.ApplyDocumentRequest(request_id=request_id, document=text, dry_run=dry_run)
    response = await services.call(services.catalog_admin.ApplyDocument, request)
    return {
        "number": response.number,
        "dry_run": dry_run,
        "changes": [change_from_pb(change) for change in response.changes],
    }


def _applied(document: Document) -> RenderableType:
    changes, number = document["changes"], document["number"]
    if not changes:
        return f"Nothing differs: the catalog stays at snapshot {number}."
    rows = table(
        ["", "WHAT", "BEFORE", "AFTER"],
        (
            [
                _MARKS[change["kind"]],
                " ".join(filter(None, [change["subject"], change["field"]])),
                change["before"] or "",
                change["after"] or "",
            ]
            for change in changes
        ),
    )
    verdict = (
        f"Nothing was changed (dry run): the catalog is at snapshot {number}."
        if document["dry_run"]
        else f"Applied as snapshot {number}."
    )
    return Group(rows, "", verdict)


def _prices(price: Document | None) -> list[str]:
    """Input, cached, output: USD per million tokens."""
    if price is None:
        return ["-", "-", "-"]
    cached = price["input_cache_read"]
    return [
        usd_per_million(price["prompt"]),
        usd_per_million(cached) if cached is not None else "-",
        usd_per_million(price["completion"]),
    ]


def _served_by(model: Document) -> str:
    serving = [each["deployment_id"] for each in model["deployments"] if each["weight"]]
    return ", ".join(serving) or "nothing: not offered"


def _model(model: Document) -> RenderableType:
    about = facts(
        [
            ("Model", model["model_id"]),
            ("Name", model["name"]),
            ("Description", model["description"]),
            ("Context", f"{model['context_length']:,} tokens, at most {model['max_output_length']:,} of them output"),
            ("Input", ", ".join(model["input_modalities"])),
            ("Output", ", ".join(model["output_modalities"])),
            ("Features", ", ".join(model["supported_features"]) or "none"),
            ("Quantization", model["quantization"] or "unknown"),
            ("Retired", model["deprecation_time"] or "not planned"),
        ]
    )
    prices = table(
        ["PRICE FROM", "INPUT $/1M", "CACHED $/1M", "OUTPUT $/1M", "IMAGE $", "REQUEST $", "VERSION"],
        (
            [
                "the beginning" if price["effective_time"] == _BEGINNING else price["effective_time"],
                *_prices(price),
                price["image"],
                price["request"],
                f"{price['price_version']}{' (now)' if price == model['price'] else ''}",
            ]
            for price in model["prices"]
        ),
        right=["INPUT $/1M", "CACHED $/1M", "OUTPUT $/1M", "IMAGE $", "REQUEST $"],
    )
    deployments = table(
        ["DEPLOYMENT", "KIND", "BASE URL", "NAME THERE", "WEIGHT", "PRIORITY", "CREDENTIAL"],
        (
            [
                each["deployment_id"],
                each["kind"],
                each["base_url"],
                each["upstream_model"],
                str(each["weight"]),
                str(each["priority"]),
                " ".join(each["credential"].values()) if each["credential"] else "none",
            ]
            for each in model["deployments"]
        ),
        right=["WEIGHT", "PRIORITY"],
    )
    return Group(
        about, "", prices, "", deployments if model["deployments"] else "Nothing serves it: it is not offered."
    )
