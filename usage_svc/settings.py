"""What usage_svc can be told: environment variables with the prefix TOLLGATE_USAGE_."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings, callers_field
from usage_svc.ledger import MAX_AMOUNT_NANOUSD


class UsageSettings(ServiceSettings):
    """usage_svc's settings."""

    model_config = SettingsConfigDict(env_prefix="TOLLGATE_USAGE_")

    callers: str = callers_field(
        "MeteringService=edge UsageService=edge,operator,internal UsageAdminService=operator LogService=edge"
    )
    session_ttl_s: Annotated[float, Field(ge=1, le=86_400)] = Field(
        600.0,
        description="How long after its last heartbeat an edge may go on serving from what it has leased; afterwards "
        "its session is fenced. Its funds stay set aside until its spool is here.",
    )
    orphan_ttl_s: Annotated[float, Field(ge=0, le=31_536_000)] = Field(
        0.0,
        description="A lost session that has been silent for this long, at least session_ttl_s, is released by force; "
        "0: never. What its spool still brings later is charged all the same, labelled as overflow.",
    )
    default_grace_nanousd: Annotated[int, Field(ge=0, le=MAX_AMOUNT_NANOUSD)] = Field(
        1_000_000_000,
        description="How far below zero, in nano-USD, an account may go from its first credit on, unless its terms say "
        "otherwise.",
    )
    idempotency_ttl_s: Annotated[int, Field(ge=1, le=30 * 86_400)] = Field(
        86_400,
        description="How long an Idempotency-Key of a customer is remembered, with its answer where that may be kept.",
    )
    dedupe_horizon_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        35,
        description="Usage of requests older than this is set aside instead of posted. Usage events must be kept for "
        "at least as long, since it is against them that a repeat is known.",
    )
    log_horizon_days: Annotated[int, Field(ge=1, le=365)] = Field(
        7,
        description="Captured inputs and outputs that arrive later than this after their request are dropped; for as "
        "long, what customers delete is remembered, so that a late copy does not bring it back.",
    )
    log_sweep_interval_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        60.0, description="How often logs that have expired are removed; nobody can read them from that moment on."
    )
    drift_interval_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        300.0,
        description="How often the sum of all balances is compared with the replay of the ledger, for a metric; 0 "
        "never. The database sums every entry each time: with hundreds of millions of them, do it less often.",
    )
