"""What every test has: sockets that end at this machine, and an empty database on either engine."""

import ipaddress
import os
import shutil
import signal
import socket
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from pytest_asyncio import is_async_test

from chassis import garbage
from tests.harness.postgres import PostgresServer, fresh_database, postgres_server

# Who starts us in the background may have us ignore Ctrl-C, and the processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


garbage.look_seldom()

# Where a system keeps files in memory: a PostgreSQL database is three hundred files, which are made there in a sixth of
# the time. All tests together make some gigabytes. Who sets TMPDIR decides otherwise.
_MEMORY, _MEMORY_BYTES_MIN = Path("/dev/shm"), 6 << 30


def _use_memory() -> bool:
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return False
    may_hold_programs = not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC
    return may_hold_programs and shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES_MIN


if _use_memory():
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)  # for processes that tests start, and for this one

# How long an example takes is the machine's doing, and no reason to fail.
settings.register_profile("tollgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tollgate")

# Their fixtures live in the session's event loop, and so must who opens a stack with them.
_SESSION_LOOP_LEVELS = ("browser", "stack")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], uvloop.Loop]]:
    """Every test runs on uvloop, as production does."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spreads the files of each level (unit, service, ...) evenly over the whole; those that share a start go together.

    Each process of a run begins with an equal part of it, and takes some of another's when it has none left: the fewer
    it has to take, the fewer files are torn apart, whose tests share what they run on.
    """
    by_level: dict[str, list[str]] = defaultdict(list)
    shares = {item.path: str(item.path) for item in items}
    shares |= {item.path: start for item in items if (start := _long_start(item))}
    for path, share in shares.items():
        if share not in by_level[_level(path)]:
            by_level[_level(path)].append(share)
    place = {share: number / len(level) for level in by_level.values() for number, share in enumerate(level)}
    items.sort(key=lambda item: (place[shares[item.path]], str(item.path)))  # stable: a file's tests stay as they were
    for item in items:
        if _level(item.path) in _SESSION_LOOP_LEVELS:
            _refuse_a_loop_of_its_own(item)


def _long_start(item: pytest.Item) -> str | None:
    """What a test uses that takes long to start and is started once for several files."""
    started = {"browser": "browser", "e2e": "shared_stack"}.get(_level(item.path))
    return started if started in getattr(item, "fixturenames", ()) else None


def pytest_collection_finish() -> None:
    """Thousands of tests, and all modules, stay to the end."""
    garbage.keep_what_is_there()


def _level(path: Path) -> str:
    return path.relative_to(Path(__file__).parent).parts[0]


def _refuse_a_loop_of_its_own(item: pytest.Item) -> None:
    """A test's own loop ends before its fixtures do, and cancels what they still hold, gRPC's serving tasks too.

    gRPC's core keeps pointers into the memory of the call that such a task awaits (cygrpc's `AioServer._request_call`,
    grpcio 1.85.1): the server's stop then writes zeros into whatever has that memory by now, and the process crashes
    somewhere else.
    """
    marks = item.iter_markers("asyncio")
    if is_async_test(item) and not any(mark.kwargs.get("loop_scope") == "session" for mark in marks):
        raise pytest.UsageError(f'{item.nodeid}: mark it with pytest.mark.asyncio(loop_scope="session")')


@pytest.fixture(scope="session")
def postgres_url_factory() -> Iterator[Callable[[], str]]:
    """Each call makes an empty PostgreSQL database and returns its DSN; the server starts with the first."""
    with ExitStack() as stack:
        servers: list[PostgresServer] = []

        def make() -> str:
            if not servers:
                servers.append(stack.enter_context(postgres_server()))
            return fresh_database(servers[0])

        yield make


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The DSN of a SQLite file that does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The DSN of an empty database, once on each engine."""
    if request.param == "sqlite":
        url: str = request.getfixturevalue("sqlite_url")
    else:
        url = request.getfixturevalue("postgres_url_factory")()
    return url


@pytest.fixture(autouse=True, scope="session")
def _sockets_end_at_this_machine() -> Iterator[None]:
    """A test that reaches beyond loopback fails, loudly, instead of depending on somebody else's machine."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _refuse_beyond_loopback(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse_beyond_loopback(self, address)
        return connect_ex(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        yield


def _refuse_beyond_loopback(sock: socket.socket, address: Any) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = address[0]
    if host == "localhost" or _is_loopback(host):
        return
    raise RuntimeError(f"a test tried to connect to {address}; sockets beyond loopback are off")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: it would have to be asked for on the network
