"""What auth_svc can be told: environment variables with the prefix TOLLGATE_AUTH_."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from auth_svc.keys import LOG_RETENTION_DAYS_MAX
from auth_svc.limits import (
    CONCURRENT_REQUESTS_MAX,
    CUSTOM,
    REQUESTS_PER_MINUTE_MAX,
    TIER_CHARS_MAX,
    TOKENS_PER_MINUTE_MAX,
    KeyLimits,
    Tiers,
)
from chassis.settings import ServiceSettings, callers_field

TierName = Annotated[str, Field(pattern=f"^[a-z0-9][a-z0-9_-]{{0,{TIER_CHARS_MAX - 1}}}$")]


class TierSetting(BaseModel):
    """One preset; 0 means no limit of this kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: Annotated[int, Field(ge=0, le=REQUESTS_PER_MINUTE_MAX)] = 0
    tokens_per_minute: Annotated[int, Field(ge=0, le=TOKENS_PER_MINUTE_MAX)] = 0
    concurrent_requests: Annotated[int, Field(ge=0, le=CONCURRENT_REQUESTS_MAX)] = 0

    def __str__(self) -> str:
        return f"{self.requests_per_minute} / {self.tokens_per_minute} / {self.concurrent_requests}"

    __repr__ = __str__


class AuthSettings(ServiceSettings):
    """auth_svc's settings."""

    model_config = SettingsConfigDict(env_prefix="TOLLGATE_AUTH_")

    callers: str = callers_field("KeyService=edge KeyManagementService=edge AuthAdminService=operator")
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
    tiers: dict[TierName, TierSetting] = Field(
        {
            "developer": TierSetting(requests_per_minute=60, tokens_per_minute=500_000, concurrent_requests=5),
            "production": TierSetting(requests_per_minute=1000, tokens_per_minute=10_000_000, concurrent_requests=50),
        },
        description="Presets of limits for keys, as JSON: an object of names, each with requests_per_minute, "
        "tokens_per_minute and concurrent_requests (in this order in the default; 0 or left out: no limit). A key of a "
        "preset has its numbers as they are now; one that keys name cannot be left out.",
    )

    keys_per_account_max: Annotated[int, Field(ge=1, le=1000)] = Field(
        200, description="How many keys that are not revoked an account may make for itself."
    )
    log_retention_days_max: Annotated[int, Field(ge=1, le=LOG_RETENTION_DAYS_MAX)] = Field(
        365, description="For how many days at most a customer may have inputs and outputs kept."
    )

    @field_validator("tiers")
    @classmethod
    def _custom_is_no_preset(cls, tiers: dict[str, TierSetting]) -> dict[str, TierSetting]:
        if CUSTOM in tiers:
            raise ValueError(f"{CUSTOM!r} is what keys with numbers of their own are called: choose another name")
        return tiers

    def presets(self) -> Tiers:
        """The presets by name."""
        return {
            name: KeyLimits(name, tier.requests_per_minute, tier.tokens_per_minute, tier.concurrent_requests)
            for name, tier in self.tiers.items()
        }
