"""Settings from environment variables with one prefix, validated at start.

Every setting is a documented field; docs/configuration.md lists them all and a test holds the two together.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "TOLLGATE_"

Port = Annotated[int, Field(ge=0, le=65535)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400 * 366)]


class SettingsInvalid(Exception):
    """One or more settings are wrong; the message has a line for each."""


class ProcessSettings(BaseSettings):
    """What every process of ours can be told. Subclasses set `env_prefix`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    log_level: Annotated[str, Field(pattern="^(?i:debug|info|warning|error)$")] = Field(
        "info", description="Least severe log line that is written: debug, info, warning or error."
    )
    metrics_host: str = Field("127.0.0.1", description="Address on which /metrics is served.")
    metrics_port: Port = Field(0, description="Port on which /metrics is served; 0 lets the system choose.")
    ready_file: Path | None = Field(
        None, description="File that is written once the process serves: JSON with its process id and ports."
    )


class ServiceSettings(ProcessSettings):
    """What every gRPC service can be told."""

    listen_host: str = Field("127.0.0.1", description="Address on which gRPC is served.")
    listen_port: Port = Field(0, description="Port on which gRPC is served; 0 lets the system choose.")
    health_host: str = Field("127.0.0.1", description="Address on which health alone is served.")
    health_port: Port | None = Field(
        None,
        description=(
            "Port on which gRPC health alone is served, never encrypted, from the process's first moment: the service "
            '"live" says that it runs, "" that it serves. Kubernetes\' probes need it: they speak no TLS.'
        ),
    )
    drain_s: PositiveSeconds = Field(
        10.0, description="How long open calls may go on after the process was asked to stop."
    )
    database_url: SecretStr = Field(
        ...,
        description="Where rows are kept: sqlite+aiosqlite:///file or postgresql+asyncpg://user:password@host/database.",
    )
    database_schema: Annotated[str, Field(pattern="^[a-z0-9_]*$")] = Field(
        "", description="PostgreSQL schema to use, created by the migration; empty means the connection's default."
    )
    schema_wait_s: Annotated[float, Field(ge=0, le=86_400 * 366)] = Field(
        0.0,
        description=(
            "How long to wait at the start, alive but not serving, for a database that can be reached and that "
            "`tollgate migrate` has brought to this version; 0 ends the process at once."
        ),
    )
    database_pool_size: Annotated[int, Field(ge=1, le=200)] = Field(
        10, description="Most connections to PostgreSQL that are open at once."
    )


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def load(settings: type[SettingsT], **overrides: Any) -> SettingsT:
    """Reads the environment.

    Raises:
        SettingsInvalid: a value is missing or wrong; names each environment variable and says what is expected.
    """
    try:
        return settings(**overrides)
    except ValidationError as error:
        lines = [
            f"{variable(settings, str(problem['loc'][0]) if problem['loc'] else '')}: {_expected(problem)}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsInvalid("\n".join(lines)) from None


def _expected(problem: Any) -> str:
    if problem["type"] == "missing":
        return "is not set, and has no default"
    message: str = problem["msg"]
    return message[:1].lower() + message[1:]


def variable(settings: type[BaseSettings], field_name: str) -> str:
    """The environment variable of a field."""
    return f"{settings.model_config.get('env_prefix', PREFIX)}{field_name}".upper()


def documented(settings: type[BaseSettings]) -> Iterable[tuple[str, FieldInfo]]:
    """Every environment variable of a settings class with its description and default."""
    return [(variable(settings, name), field) for name, field in settings.model_fields.items()]


def unknown_variables(known: Iterable[type[BaseSettings]]) -> list[str]:
    """Variables in the environment that have our prefix and mean nothing: most likely misspelt."""
    names = {name for settings in known for name, _ in documented(settings)}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in names)


def redacted(value: Any) -> str:
    """A setting's value for people: secrets masked."""
    return "********" if isinstance(value, SecretStr) else str(value)
