"""`tollgate migrate`: brings each service's database to the schema that this code needs."""

import time
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from chassis.settings import PREFIX, DatabaseSettings, SettingsInvalid, load
from tollgate.failure import CommandFailed
from tollgate.options import AsJson
from tollgate.output import Document, show, table
from tollgate.processes import SERVICES, Service

_RETRY_INTERVAL_S = 1.0


def migrate(
    service: Annotated[
        list[Service] | None, typer.Argument(help="Which databases; all three unless named.", show_default=False)
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--wait-s", help="How long to go on trying, for a database that is only starting.", min=0)
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Migrates the databases that TOLLGATE_AUTH_DATABASE_URL and its like name. Safe to repeat, and to run twice."""
    _require_settings(service or SERVICES)
    end_s = time.monotonic() + wait_s
    revisions = {name: _migrate_until(name, end_s) for name in (service or SERVICES)}
    document: Document = {"revisions": revisions}
    show(
        document,
        as_json,
        lambda _: table(["DATABASE", "REVISION"], ([f"{name}_svc", revision] for name, revision in revisions.items())),
    )


def _require_settings(services: Iterable[str]) -> None:
    """Before any database is touched, and all that is wrong at once.

    Raises:
        SettingsInvalid: a line for each.
    """
    wrong = []
    for name in services:
        try:
            load(_database_settings(name))
        except SettingsInvalid as failure:
            wrong.append(str(failure))
    if wrong:
        wrong.append("(`tollgate up` needs none of these, and migrates its own databases at each start)")
        raise SettingsInvalid("\n".join(wrong))


def _migrate_until(name: str, end_s: float) -> str:
    told = ""
    while True:
        try:
            return migrate_service(name)
        except CommandFailed as failure:
            if time.monotonic() > end_s:
                raise
            # Else whoever looks at a job's log sees nothing while it waits.
            if failure.message != told:
                typer.echo(f"waiting: {failure.message}", err=True)
                told = failure.message
            time.sleep(_RETRY_INTERVAL_S)


def migrate_service(name: str) -> str:
    """Migrates one service's database, by that service's own settings: those of its database, and no other secret.

    Returns the revision that it is at now.

    Raises:
        SettingsInvalid: the service's settings are wrong.
        CommandFailed: the database cannot be reached or cannot be migrated (MIGRATION_FAILED).
    """
    # Late, since these load the database's libraries, which no other command needs.
    from sqlalchemy.exc import SQLAlchemyError

    from chassis.migration import migrate_now

    settings = load(_database_settings(name))
    migrations = import_module(f"{name}_svc.migrations")
    url = settings.database_url.get_secret_value()
    try:
        return migrate_now(url, migrations, schema=settings.database_schema)
    except (SQLAlchemyError, OSError, ValueError) as error:
        # str(error) may hold SQL and parameters, never the URL's password; its first line says what happened.
        first_line = str(error).splitlines()[0]
        raise CommandFailed(
            "MIGRATION_FAILED",
            f"{name}_svc's database cannot be migrated: {first_line}; check {PREFIX}{name.upper()}_DATABASE_URL, and "
            "that the database is there (--wait-s 60 waits for one that is only starting)",
        ) from error


def _database_settings(name: str) -> type[DatabaseSettings]:
    """What every service has, under the prefix of one: a migration needs no pepper, so it need not be given it."""
    config = {**DatabaseSettings.model_config, "env_prefix": f"{PREFIX}{name.upper()}_"}
    return type("OneDatabase", (DatabaseSettings,), {"model_config": config, "__module__": __name__})
