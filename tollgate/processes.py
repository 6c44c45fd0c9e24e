"""The processes of a stack by name, and where each one's settings are declared."""

from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module

from pydantic_settings import BaseSettings

from chassis.settings import ProcessSettings, ServiceSettings


class Service(StrEnum):
    """The three gRPC services."""

    AUTH = "auth"
    CATALOG = "catalog"
    USAGE = "usage"


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """One service: its package, and its settings class, which is loaded when it is asked for."""

    package: str
    settings_name: str

    def settings_type(self) -> type[ServiceSettings]:
        found: type[ServiceSettings] = getattr(import_module(f"{self.package}.settings"), self.settings_name)
        return found


SERVICES = {
    Service.AUTH: ServiceProcess("auth_svc", "AuthSettings"),
    Service.CATALOG: ServiceProcess("catalog_svc", "CatalogSettings"),
    Service.USAGE: ServiceProcess("usage_svc", "UsageSettings"),
}


def edge_settings_type() -> type[ProcessSettings]:
    """The edge's settings class, loaded when it is asked for."""
    found: type[ProcessSettings] = import_module("edge.settings").EdgeSettings
    return found


def settings_types() -> dict[str, type[BaseSettings]]:
    """Every settings class by its process's name, in the order in which a request meets them; the command's is last."""
    from tollgate.settings import CommandSettings

    services: dict[str, type[BaseSettings]] = {name.value: each.settings_type() for name, each in SERVICES.items()}
    return {"edge": edge_settings_type(), **services, "command": CommandSettings}
