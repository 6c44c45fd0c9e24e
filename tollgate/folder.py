"""The data folder of a stack on one machine: databases, secrets, spool, logs, and what its processes are told."""

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from tollgate.failure import CommandFailed
from tollgate.processes import Service

PEPPER_MIN_CHARS = 32  # auth_svc takes no shorter one

_PEPPER = "key_pepper"
_LOCAL_MODEL_PORT = "local_model_port"


def prepare(data_dir: Path) -> Path:
    """The folder, made if need be, for its owner only. Absolute, since children must not depend on where they start.

    Raises:
        CommandFailed: it cannot be made or written (DATA_DIR_UNUSABLE).
    """
    data_dir = data_dir.absolute()
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(
            "DATA_DIR_UNUSABLE", f"cannot make the folder {data_dir}: {error.strerror}; choose another --data-dir"
        ) from None
    if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        raise CommandFailed("DATA_DIR_UNUSABLE", f"cannot write into {data_dir}: choose another --data-dir")
    return data_dir


def service_environment(
    data_dir: Path, service: Service, environment: Mapping[str, str], *, pepper: str | None = None
) -> dict[str, str]:
    """What a service is told on top of the operator's own variables; those win where they are set.

    `pepper` stands in for the folder's own, so that a mere check draws none.

    Raises:
        CommandFailed: the secret under which the folder's keys are hashed is lost (PEPPER_LOST).
    """
    prefix = f"TOLLGATE_{service.name}_"
    told = {
        f"{prefix}DATABASE_URL": f"sqlite+aiosqlite:///{data_dir / f'{service}.db'}",
        f"{prefix}LISTEN_HOST": "127.0.0.1",
        f"{prefix}LISTEN_PORT": "0",
    }
    told = {name: value for name, value in told.items() if not environment.get(name)}
    if service is Service.AUTH and not environment.get(f"{prefix}KEY_PEPPER"):
        told[f"{prefix}KEY_PEPPER"] = pepper or _pepper(data_dir)
    return {**told, f"{prefix}READY_FILE": "{ready_file}"}


def edge_environment(
    data_dir: Path, listen: tuple[str, int] | None, addresses: Mapping[Service, str], environment: Mapping[str, str]
) -> dict[str, str]:
    """What the edge is told on top of the operator's own variables; `listen` is host and port, if not theirs."""
    told = {
        "TOLLGATE_EDGE_DATA_DIR": str(data_dir / "edge"),
        "TOLLGATE_EDGE_ENDPOINT_LAG_S": "0",  # no load balancer has to notice first
    }
    return {
        **{name: value for name, value in told.items() if not environment.get(name)},
        **({"TOLLGATE_EDGE_LISTEN_HOST": listen[0], "TOLLGATE_EDGE_LISTEN_PORT": str(listen[1])} if listen else {}),
        **{f"TOLLGATE_EDGE_{service.name}_ADDRESS": address for service, address in addresses.items()},
        "TOLLGATE_EDGE_READY_FILE": "{ready_file}",
    }


def local_model_port(data_dir: Path, *, remember: int | None = None) -> int:
    """The port that the local model had before if it is free again, so that the catalog can stay; else 0 for any."""
    file = data_dir / _LOCAL_MODEL_PORT
    if remember is not None:
        file.write_text(f"{remember}\n")
        return remember
    try:
        port = int(file.read_text())
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except (OSError, ValueError, OverflowError):
        return 0
    return port


def _pepper(data_dir: Path) -> str:
    """The secret under which keys are hashed: drawn on the first start, kept for ever."""
    file = data_dir / _PEPPER
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        pass
    if (data_dir / f"{Service.AUTH}.db").exists():
        raise CommandFailed(
            "PEPPER_LOST",
            f"{file} is gone, and without it no key in this folder can be checked: put it back from a copy, "
            "or use another --data-dir",
        )
    pepper = secrets.token_urlsafe(48)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as opened:
        opened.write(pepper + "\n")
        opened.flush()
        os.fsync(opened.fileno())  # it must not be lost after a key was made with it
    return pepper
