"""Settings from environment variables with one prefix, validated at start.

Every setting is a documented field; docs/configuration.md lists them all and a test holds the two together.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.callers import Callers, callers_from_text, with_defaults
from chassis.loopback import is_loopback
from protos.client import TlsFiles

PREFIX = "TOLLGATE_"

Port = Annotated[int, Field(ge=0, le=65535)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400 * 366)]


class SettingsInvalid(Exception):
    """One or more settings are wrong; the message has a line for each."""


class WireSettings(BaseSettings):
    """How a process shows who it is to the others, and checks who they are: one form for all."""

    tls_certificate_file: Path | None = Field(
        None,
        description="PEM file with this process's certificate for gRPC and what links it to the CA. It is read again "
        "when it changes, as are the next two; all three are set, or none.",
    )
    tls_key_file: Path | None = Field(None, description="PEM file with the private key of that certificate.")
    tls_ca_file: Path | None = Field(
        None, description="PEM file with the certificates of the CAs that the other side's certificate must come from."
    )
    plaintext_beyond_loopback: bool = Field(
        False,
        description="Says in so many words that gRPC without TLS may leave this machine: whoever is on the network "
        "between can then read and forge every call.",
    )

    @property
    def tls_files(self) -> TlsFiles | None:
        """Where the certificates are; None without TLS."""
        certificate, key, ca = self.tls_certificate_file, self.tls_key_file, self.tls_ca_file
        return TlsFiles(certificate, key, ca) if certificate and key and ca else None

    def refuse_plaintext(self, field_name: str, host: str, verb: str) -> None:
        """For validators: a host beyond loopback needs TLS, or the word that it may do without.

        Raises:
            ValueError: says what to set.
        """
        if self.tls_files or self.plaintext_beyond_loopback or is_loopback(host):
            return
        tls = ", ".join(variable(type(self), name) for name in _TLS_FIELDS)
        raise ValueError(
            f"{variable(type(self), field_name)}: {host} is beyond this machine's loopback, and gRPC without TLS is "
            f"{verb} on loopback only: set {tls}; or, where everybody on the network may read and forge every call, "
            f"{variable(type(self), 'plaintext_beyond_loopback')}=true"
        )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        missing = [variable(type(self), name) for name in _TLS_FIELDS if getattr(self, name) is None]
        if missing and len(missing) < len(_TLS_FIELDS):
            raise ValueError(f"{missing[0]}: is not set, and TLS needs all three of its files")
        return self


_TLS_FIELDS = ("tls_certificate_file", "tls_key_file", "tls_ca_file")


class ProcessSettings(WireSettings):
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


def callers_field(default: str) -> Any:
    """The setting that says who may call what; each service declares it with its own table as the default."""
    return Field(
        default,
        description="Who may call what, by the names in their certificates: `Service=name,name` for each gRPC service, "
        "with spaces between; `Service/Method=name` for one method, `*` for every certificate of the CA. What is not "
        "named here keeps its default. Without TLS nobody has a name, and everybody may call.",
    )


class DatabaseSettings(BaseSettings):
    """Where a service keeps its rows: all that its migration may know."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    database_url: SecretStr = Field(
        ...,
        description="Where rows are kept: sqlite+aiosqlite:///file or postgresql+asyncpg://user:password@host/database.",
    )
    database_schema: Annotated[str, Field(pattern="^[a-z0-9_]*$")] = Field(
        "", description="PostgreSQL schema to use, created by the migration; empty means the connection's default."
    )

    @field_validator("database_url", mode="before")
    @classmethod
    def _without_the_line_end_of_a_file(cls, value: object) -> object:
        """A Secret that is made of a file has the file's last line end in it, and no URL has."""
        return value.strip() if isinstance(value, str) else value


class ServiceSettings(DatabaseSettings, ProcessSettings):
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
    callers: str = callers_field("")
    connection_age_s: PositiveSeconds = Field(
        300.0,
        description="Age at which a connection is handed over to a new one, so that new replicas get their share; "
        "calls on it finish, watches resume.",
    )
    connections_max: Annotated[int, Field(ge=1)] = Field(1000, description="Most connections at once.")
    calls_max: Annotated[int, Field(ge=1)] = Field(
        4000, description="Most calls at once, open watches included; more get RESOURCE_EXHAUSTED."
    )
    call_timeout_s: PositiveSeconds = Field(60.0, description="Deadline of a call that names none; not of watches.")
    call_timeout_s_max: PositiveSeconds = Field(
        3600.0, description="Work on a call ends after this long, whatever deadline it named; not of watches."
    )
    drain_s: PositiveSeconds = Field(
        10.0, description="How long open calls may go on after the process was asked to stop."
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

    @field_validator("callers", mode="after")
    @classmethod
    def _callers_are_readable(cls, text: str, info: ValidationInfo) -> str:
        callers_from_text(text, known=callers_from_text(cls.model_fields["callers"].default))
        return text

    def allowed_callers(self) -> Callers:
        """Who may call what: what was set over the defaults."""
        return with_defaults(self.callers, type(self).model_fields["callers"].default)

    @model_validator(mode="after")
    def _plaintext_stays_here(self) -> Self:
        self.refuse_plaintext("listen_host", self.listen_host, "served")
        return self


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def load(settings: type[SettingsT], **overrides: Any) -> SettingsT:
    """Reads the environment.

    Raises:
        SettingsInvalid: a value is missing or wrong; names each environment variable and says what is expected.
    """
    try:
        return settings(**overrides)
    except ValidationError as error:
        raise SettingsInvalid("\n".join(_line(settings, problem) for problem in _problems(error))) from None


def _problems(error: ValidationError) -> list[Any]:
    return list(error.errors(include_input=False, include_url=False))


def _line(settings: type[BaseSettings], problem: Any) -> str:
    if not problem["loc"]:  # of several settings together: it names them itself
        return str(problem["msg"]).removeprefix("Value error, ")
    return f"{variable(settings, str(problem['loc'][0]))}: {_expected(settings, problem)}"


def _expected(settings: type[BaseSettings], problem: Any) -> str:
    if problem["type"] == "missing":
        return "is not set, and has no default"
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if problem["type"] == "string_pattern_mismatch":  # few read patterns; what the setting is says what to write
        return f"{settings.model_fields[problem['loc'][0]].description} ({message})"
    return message


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
