"""What auth_svc can be told: environment variables with the prefix TOLLGATE_AUTH_."""

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings


class AuthSettings(ServiceSettings):
    """auth_svc's settings."""

    model_config = SettingsConfigDict(env_prefix="TOLLGATE_AUTH_")

    key_pepper: Annotated[SecretStr, Field(min_length=32, max_length=1024)] = Field(
        ...,
        description="Secret under which keys are hashed, at least 32 random characters, the same for every replica. "
        "Keep a copy: with another one no existing key works, so the service refuses to start.",
    )
    watch_heartbeat_s: Annotated[float, Field(ge=1, le=60)] = Field(
        2.0,
        description="Within this time an edge that watches hears something, or else knows that it hears nothing.",
    )
    key_change_history_max: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        100_000,
        description="How many changes of keys and accounts are kept for edges that were away; one that missed more "
        "forgets all that it holds.",
    )
