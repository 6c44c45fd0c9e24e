"""`tollgate up`: all four processes on one machine, in one data folder, under one roof."""

import asyncio
import errno
import socket
from pathlib import Path
from typing import Annotated

import typer

from tollgate import local_model
from tollgate.failure import CommandFailed
from tollgate.folder import prepare
from tollgate.models import read_document
from tollgate.narration import narration
from tollgate.running import FolderLock
from tollgate.stack import Plan, Stack


def up(
    catalog: Annotated[
        str | None, typer.Option("--catalog", help="Your own catalog document, applied at the start.", metavar="FILE")
    ] = None,
    data_dir: Annotated[
        Path,
        typer.Option(
            "--data-dir",
            help="Where databases, secrets and logs are kept.",
            envvar="TOLLGATE_COMMAND_DATA_DIR",
            file_okay=False,
        ),
    ] = Path(".tollgate"),
    host: Annotated[
        str, typer.Option("--host", help="Address on which the API is served.", envvar="TOLLGATE_EDGE_LISTEN_HOST")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", help="Port of the API; 0: any.", envvar="TOLLGATE_EDGE_LISTEN_PORT", min=0, max=65535),
    ] = 8080,
    ready_file: Annotated[
        Path | None,
        typer.Option("--ready-file", help="Written once everything serves: JSON with addresses and process ids."),
    ] = None,
    with_local_model: Annotated[
        bool, typer.Option("--local-model", help="With a small real model behind it, and a demo account.")
    ] = False,
) -> None:
    """Starts auth_svc, catalog_svc, usage_svc and the edge, and runs them until Ctrl-C."""
    if catalog is not None and with_local_model:
        raise typer.BadParameter("give either --catalog or --local-model", param_hint="--catalog")
    if with_local_model:
        local_model.require()
    plan = Plan(
        data_dir=prepare(data_dir),
        host=host,
        port=port,
        catalog=None if catalog is None else read_document(catalog),
        with_local_model=with_local_model,
        ready_file=ready_file,
    )
    with FolderLock(plan.data_dir) as lock:
        _refuse_taken_port(host, port)
        raise typer.Exit(asyncio.run(Stack(plan, narration(), lock.fd).run()))


def _refuse_taken_port(host: str, port: int) -> None:
    """Before anything is started, since a port that is taken is the most usual reason to fail.

    Raises:
        CommandFailed: somebody listens there (PORT_TAKEN), or nobody here can (HOST_UNUSABLE).
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # else a port that was just left counts as taken
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandFailed(
                "PORT_TAKEN",
                f"port {port} on {host} is taken by another process: choose another with `--port 8081` "
                f"(0: any that is free; `make run ARGS='--port 8081'`), or find it with `ss -ltnp 'sport = :{port}'` "
                "and stop it",
            ) from None
        raise CommandFailed(
            "HOST_UNUSABLE", f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port"
        ) from None
