"""`tollgate keys`: the API keys of accounts."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chassis.faults import Fault
from protos.auth.v1 import auth_pb2
from protos.catalog.v1 import catalog_pb2
from tollgate.convert import key_from_pb, scope_to_pb, timestamp_from_datetime
from tollgate.failure import CommandFailed
from tollgate.key_limits import (
    ConcurrentRequests,
    LimitOptions,
    Period,
    RequestsPerMinute,
    SpendLimit,
    Tier,
    TokensPerMinute,
    limits_for_people,
    spend_limit_for_people,
)
from tollgate.moments import moment_after
from tollgate.options import Account, AsJson, Key, RequestId
from tollgate.output import Document, facts, show, table
from tollgate.services import Services, ask, new_request_id

app = typer.Typer(no_args_is_help=True, help="API keys: create, change, revoke.")

_PAGE_SIZE = 1000
_NEVER = "never"


class Scope(StrEnum):
    """What a key may be used for."""

    INFERENCE = "inference"
    MANAGEMENT = "management"


Scopes = Annotated[list[Scope], typer.Option("--scope", help="What it may be used for; may be repeated.")]
Models = Annotated[
    list[str], typer.Option("--model", help="A model that it may use; may be repeated. Without: all.", metavar="MODEL")
]
Expires = Annotated[
    str, typer.Option("--expires", help="When it stops working: 2027-01-31, 90d, 12h or never.", metavar="WHEN")
]
LogInputs = Annotated[bool | None, typer.Option("--log-inputs/--no-log-inputs", help="Whether requests are kept.")]
LogOutputs = Annotated[bool | None, typer.Option("--log-outputs/--no-log-outputs", help="Whether answers are kept.")]
LogRetention = Annotated[
    int | None,
    typer.Option("--log-retention-days", help="For how many days; 0 means the operator's default.", min=0, max=3650),
]


@app.command()
def create(
    account: Account,
    name: Annotated[str, typer.Option("--name", help="For people; need not be unique.")] = "default",
    scope: Scopes = [Scope.INFERENCE],  # noqa: B006 - typer copies it
    model: Models = [],  # noqa: B006 - typer copies it
    expires: Expires = _NEVER,
    log_inputs: LogInputs = None,
    log_outputs: LogOutputs = None,
    log_retention_days: LogRetention = None,
    tier: Tier = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    spend_limit: SpendLimit = None,
    spend_period: Period = None,
    secret_file: Annotated[
        Path | None,
        typer.Option("--secret-file", help="Import a secret that you already hold: a file, or - for standard input."),
    ] = None,
    as_json: AsJson = False,
    request_id: RequestId = None,
) -> None:
    """Creates a key and shows its secret, once. Nobody can show it again, not even you."""
    secret = "" if secret_file is None else read_secret(secret_file)
    limits = LimitOptions(tier, requests_per_minute, tokens_per_minute, concurrent_requests, spend_limit, spend_period)

    async def work(services: Services) -> Document:
        found = await services.account(account)
        key = auth_pb2.Key(
            account_id=found.account_id,
            name=name,
            scopes=[scope_to_pb(each) for each in scope],
            allowed_models=model,
            log_inputs=bool(log_inputs),
            log_outputs=bool(log_outputs),
            log_retention_days=log_retention_days or 0,
        )
        if expires != _NEVER:
            key.expire_time.CopyFrom(timestamp_from_datetime(_expiry(expires)))
        limits.apply(key, auth_pb2.Key())
        request = auth_pb2.CreateKeyRequest(request_id=request_id or new_request_id(), key=key, secret=secret)
        response = await services.call(services.auth_admin.CreateKey, request)
        await _note_unknown_models(services, model)
        return {**key_from_pb(response.key, datetime.now(UTC)), "secret": response.secret or None}

    show(ask(work), as_json, _created)


@app.command("list")
def list_keys(account: Account, as_json: AsJson = False) -> None:
    """Lists an account's keys, oldest first, revoked ones included."""

    async def work(services: Services) -> Document:
        account_id = (await services.account(account)).account_id
        now = datetime.now(UTC)
        found: list[Document] = []
        page_token = ""
        while True:
            request = auth_pb2.ListKeysRequest(account_id=account_id, page_size=_PAGE_SIZE, page_token=page_token)
            page = await services.call(services.auth_admin.ListKeys, request)
            found += [key_from_pb(key, now) for key in page.keys]
            page_token = page.next_page_token
            if not page_token:
                return {"keys": found}

    show(
        ask(work),
        as_json,
        lambda document: table(
            ["KEY", "NAME", "SECRET", "STATE", "SCOPES", "MODELS", "EXPIRES"],
            (
                [
                    key["key_id"],
                    key["name"],
                    f"{key['public_prefix']}...",
                    key["state"],
                    ", ".join(key["scopes"]),
                    ", ".join(key["allowed_models"]) or "all",
                    key["expire_time"] or _NEVER,
                ]
                for key in document["keys"]
            ),
        ),
    )


@app.command("show")
def show_key(key_id: Key, as_json: AsJson = False) -> None:
    """Shows one key, without its secret."""

    async def work(services: Services) -> Document:
        request = auth_pb2.GetKeyRequest(key_id=key_id)
        return key_from_pb((await services.call(services.auth_admin.GetKey, request)).key, datetime.now(UTC))

    show(ask(work), as_json, _key)


@app.command()
def update(
    key_id: Key,
    name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    scope: Annotated[
        list[Scope] | None, typer.Option("--scope", help="In place of its scopes; may be repeated.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="In place of the models that it may use; may be repeated.", metavar="MODEL"),
    ] = None,
    all_models: Annotated[bool, typer.Option("--all-models", help="Let it use every model.")] = False,
    expires: Annotated[
        str | None, typer.Option("--expires", help="2027-01-31, 90d, 12h or never.", metavar="WHEN")
    ] = None,
    log_inputs: LogInputs = None,
    log_outputs: LogOutputs = None,
    log_retention_days: LogRetention = None,
    tier: Tier = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    spend_limit: SpendLimit = None,
    spend_period: Period = None,
    as_json: AsJson = False,
    request_id: RequestId = None,
) -> None:
    """Changes what is given, and leaves the rest."""
    key = auth_pb2.Key(key_id=key_id)
    paths = []
    for path, value in (
        ("name", name),
        ("log_inputs", log_inputs),
        ("log_outputs", log_outputs),
        ("log_retention_days", log_retention_days),
    ):
        if value is not None:
            setattr(key, path, value)
            paths.append(path)
    if scope:
        key.scopes.extend(scope_to_pb(each) for each in scope)
        paths.append("scopes")
    if model and all_models:
        raise typer.BadParameter("give either --model or --all-models", param_hint="--all-models")
    if model or all_models:
        key.allowed_models.extend(model or [])
        paths.append("allowed_models")
    if expires is not None:
        if expires != _NEVER:
            key.expire_time.CopyFrom(timestamp_from_datetime(_expiry(expires)))
        paths.append("expire_time")
    limits = LimitOptions(tier, requests_per_minute, tokens_per_minute, concurrent_requests, spend_limit, spend_period)
    paths += limits.paths()
    if not paths:
        raise typer.BadParameter("say what to change, for instance --name or --expires", param_hint="OPTIONS")

    async def work(services: Services) -> Document:
        if limits.paths():
            before = await services.call(services.auth_admin.GetKey, auth_pb2.GetKeyRequest(key_id=key_id))
            limits.apply(key, before.key)
        request = auth_pb2.UpdateKeyRequest(
            request_id=request_id or new_request_id(), key=key, update_mask=FieldMask(paths=paths)
        )
        updated = await services.call(services.auth_admin.UpdateKey, request)
        await _note_unknown_models(services, model or [])
        return key_from_pb(updated.key, datetime.now(UTC))

    show(ask(work), as_json, _key)


@app.command()
def revoke(key_id: Key, as_json: AsJson = False, request_id: RequestId = None) -> None:
    """Revokes a key for good: within a second it works nowhere."""

    async def work(services: Services) -> Document:
        request = auth_pb2.RevokeKeyRequest(request_id=request_id or new_request_id(), key_id=key_id)
        return key_from_pb((await services.call(services.auth_admin.RevokeKey, request)).key, datetime.now(UTC))

    show(ask(work), as_json, _key)


async def _note_unknown_models(services: Services, model_ids: Sequence[str]) -> None:
    """Says so on standard error: a model may well be added later, and a typing error looks the same."""
    if not model_ids:
        return
    try:
        snapshot = (await services.call(services.catalog.GetSnapshot, catalog_pb2.GetSnapshotRequest())).snapshot
    except (CommandFailed, Fault):
        return  # the key is made; what is missing is only the note
    known = {model.model_id for model in snapshot.models}
    for model_id in model_ids:
        if model_id not in known:
            note = f"note: the catalog has no model {model_id!r}, so the key cannot use it yet; `tollgate models list`"
            print(f"{note} shows those that there are", file=sys.stderr)


def _expiry(text: str) -> datetime:
    try:
        return moment_after(text, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or never", param_hint="--expires") from None


def read_secret(path: Path) -> str:
    """A secret that the operator brings.

    Raises:
        CommandFailed: it cannot be read (FILE_UNREADABLE).
    """
    try:
        return (sys.stdin.read() if str(path) == "-" else path.read_text()).strip()
    except OSError as error:
        raise CommandFailed("FILE_UNREADABLE", f"cannot read the secret from {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandFailed("FILE_UNREADABLE", f"cannot read the secret from {path}: it is not UTF-8") from None


def _created(key: Document) -> RenderableType:
    if key["secret"] is None:
        note = "The secret was shown when this request was made first, and cannot be shown again."
    else:
        note = "Keep the secret now: nobody can show it again."
    secret = facts([("Secret", key["secret"] or "")])
    return Group(_key(key), *([secret] if key["secret"] else []), "", Text(note, style="bold"))


def _key(key: Document) -> Table:
    kept = [part for part, on in (("requests", key["log_inputs"]), ("answers", key["log_outputs"])) if on]
    days = key["log_retention_days"]
    return facts(
        [
            ("Key", key["key_id"]),
            ("Account", key["account_id"]),
            ("Name", key["name"]),
            ("Begins with", key["public_prefix"]),
            ("State", key["state"]),
            ("Scopes", ", ".join(key["scopes"])),
            ("Models", ", ".join(key["allowed_models"]) or "all"),
            ("Expires", key["expire_time"] or _NEVER),
            ("Limits", limits_for_people(key)),
            ("Spend limit", spend_limit_for_people(key)),
            ("Kept", f"{' and '.join(kept)}{f' for {days} days' if days else ''}" if kept else "nothing"),
            ("Created", key["create_time"]),
            *([("Revoked", key["revoke_time"])] if key["revoke_time"] else []),
        ]
    )
