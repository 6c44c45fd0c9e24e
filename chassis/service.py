"""The life of a gRPC service: settings, log, metrics, database, server, ready, stop. One call in every `__main__`."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import ModuleType
from typing import TypeVar

from chassis import lifetime, log, migration, schema_wait, settings
from chassis.database import Database, open_engine
from chassis.faults import FailedPrecondition, Unavailable
from chassis.health import HealthServer
from chassis.lifetime import Lifetime
from chassis.log import logger
from chassis.metrics import MetricsServer
from chassis.migration import SchemaState
from chassis.server import RpcServer, Servicer, Serving
from chassis.settings import ServiceSettings

_log = logger(__name__)

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)

# Opens what a service needs and gives its servicers: `async with open_servicers(settings, database, lifetime) as them`.
OpenServicers = Callable[[SettingsT, Database, Lifetime], AbstractAsyncContextManager[Sequence[Servicer]]]


def run_service(
    name: str, settings_type: type[SettingsT], migrations: ModuleType, open_servicers: OpenServicers[SettingsT]
) -> int:
    """Runs a service until it is told to stop. Returns the exit status; 2 for wrong settings."""
    try:
        configured = settings.load(settings_type)
    except settings.SettingsInvalid as error:
        return lifetime.fail(f"{name} cannot start: its settings are wrong.\n{error}")
    log.configure(configured.log_level, name)
    return lifetime.run(lambda process: serve(configured, migrations, open_servicers, process))


async def serve(
    configured: SettingsT, migrations: ModuleType, open_servicers: OpenServicers[SettingsT], process: Lifetime
) -> None:
    """Waits for the schema if it may, then serves until the lifetime ends. Raises as `serving`."""
    async with HealthServer(configured.health_host, configured.health_port) as health:
        await schema_wait.until_usable(configured, migrations, process)
        if process.stopping:
            return
        async with (
            serving(configured, migrations, open_servicers, process) as (server, metrics_server),
            health.serving(),
        ):
            lifetime.announce_ready(
                configured.ready_file,
                port=server.port,
                metrics_port=metrics_server.port,
                **({"health_port": health.port} if health.port else {}),
            )
            await process.until_stopped()


@asynccontextmanager
async def serving(
    configured: SettingsT, migrations: ModuleType, open_servicers: OpenServicers[SettingsT], process: Lifetime
) -> AsyncIterator[tuple[RpcServer, MetricsServer]]:
    """A service for as long as the block lasts.

    Raises:
        FailedPrecondition: the database is at an older schema revision than this code's (SCHEMA_NOT_CURRENT).
        Unavailable: the database cannot be asked (DATABASE_UNREACHABLE).
        PortTaken: the port is in use.
        TlsUnusable: the certificates cannot be used.
    """
    url, schema = configured.database_url.get_secret_value(), configured.database_schema
    try:
        found, expected = await migration.current(url, schema=schema), migration.head(migrations)
    except schema_wait.UNREACHABLE as error:
        raise Unavailable(
            "DATABASE_UNREACHABLE",
            f"the database cannot be asked: {schema_wait.reason(error)}; start it, check the database's URL, or set "
            f"{configured.model_config.get('env_prefix', '')}SCHEMA_WAIT_S for how long to wait for it at the start",
        ) from error
    state = migration.state(found, migrations)
    if state is SchemaState.AHEAD:
        _log.warning("the schema is of a later version", found=found, expected=expected)
    if state is SchemaState.BEHIND:
        raise FailedPrecondition(
            "SCHEMA_NOT_CURRENT",
            f"the database is at schema revision {found or 'none'}, this code needs {expected}: run `tollgate migrate`",
        )
    engine = open_engine(url, schema=schema, pool_size=configured.database_pool_size)
    async with (
        Database(engine) as database,
        open_servicers(configured, database, process) as servicers,
        MetricsServer(configured.metrics_host, configured.metrics_port) as metrics_server,
        RpcServer(servicers, _serving(configured)) as server,
    ):
        yield server, metrics_server


def _serving(configured: ServiceSettings) -> Serving:
    return Serving(
        host=configured.listen_host,
        port=configured.listen_port,
        drain_s=configured.drain_s,
        tls=configured.tls_files,
        callers=configured.allowed_callers(),
        connection_age_s=configured.connection_age_s,
        connections_max=configured.connections_max,
        calls_max=configured.calls_max,
        call_timeout_s=configured.call_timeout_s,
        call_timeout_s_max=configured.call_timeout_s_max,
    )
