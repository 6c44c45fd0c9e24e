"""`tollgate edge`, `tollgate auth`, `tollgate catalog` and `tollgate usage`: this process becomes one of the four.

One image and one command for all of them. The command is replaced, not wrapped: signals, exit status and process id are
the process's own, and what the command has loaded is gone.
"""

import os
import sys
from typing import NoReturn

from tollgate.processes import SERVICES, Service


def edge() -> None:
    """Runs the edge: the HTTP API, configured by TOLLGATE_EDGE_... in the environment."""
    become("edge")


def auth() -> None:
    """Runs auth_svc, configured by TOLLGATE_AUTH_... in the environment."""
    become(SERVICES[Service.AUTH].package)


def catalog() -> None:
    """Runs catalog_svc, configured by TOLLGATE_CATALOG_... in the environment."""
    become(SERVICES[Service.CATALOG].package)


def become(package: str) -> NoReturn:
    """Goes on as `python -m PACKAGE`, in the same environment and under the same process id."""
    os.execv(sys.executable, [sys.executable, "-m", package])  # noqa: S606 - no shell is wanted
