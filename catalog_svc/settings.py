"""What catalog_svc can be told: environment variables with the prefix TOLLGATE_CATALOG_."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings, callers_field


class CatalogSettings(ServiceSettings):
    """catalog_svc's settings."""

    model_config = SettingsConfigDict(env_prefix="TOLLGATE_CATALOG_")

    callers: str = callers_field("CatalogService=edge,operator,internal CatalogAdminService=operator")
    watch_heartbeat_s: Annotated[float, Field(ge=0.5, le=60)] = Field(
        2.0,
        description="Within this time an edge that watches hears something, or else knows that it hears nothing.",
    )
    watches_max: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000, description="Most watches that one process serves at once; further ones are refused."
    )
