"""The operator's command. `tollgate --help` lists what it can do."""

import sys
from importlib import metadata
from typing import Annotated

import typer

from chassis.faults import Fault
from chassis.settings import SettingsInvalid
from tollgate import accounts, config, credits, keys, models, process, sessions
from tollgate.audit import audit
from tollgate.balance import balance
from tollgate.bootstrap import bootstrap
from tollgate.failure import CommandFailed, report
from tollgate.local_model import local_model
from tollgate.migrate import migrate
from tollgate.up import up
from tollgate.usage import usage

_HELP = "Tollgate: an OpenAI-compatible LLM API for paying customers. Start everything here with `tollgate up`."


def command() -> typer.Typer:
    """The whole command."""
    app = typer.Typer(
        help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
    )
    app.callback()(_options)
    app.command()(up)
    app.command()(migrate)
    app.add_typer(config.app, name="config")
    app.add_typer(accounts.app, name="accounts")
    app.add_typer(keys.app, name="keys")
    app.add_typer(credits.app, name="credits")
    app.command()(balance)
    app.command()(audit)
    app.add_typer(sessions.app, name="sessions")
    app.add_typer(models.app, name="models")
    app.command()(usage)
    app.command()(process.edge)
    app.command()(process.auth)
    app.command()(process.catalog)
    app.command()(bootstrap)
    app.command("local-model")(local_model)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        print(f"tollgate {metadata.version('tollgate')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version, and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command: 0 for done, 1 for a failure, 2 for a wrong use or wrong settings."""
    as_json = "--json" in sys.argv
    try:
        command()()
    except (CommandFailed, Fault) as failure:
        report(failure, as_json=as_json)
        sys.exit(1)
    except SettingsInvalid as failure:
        report(CommandFailed("SETTINGS_INVALID", f"wrong settings:\n{failure}"), as_json=as_json)
        sys.exit(2)


if __name__ == "__main__":
    main()
