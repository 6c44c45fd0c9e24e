"""The JSON of the management API, as types: what is parsed, what is answered, and what /openapi.json says are these.

Money is a decimal text in USD, exact to the nano-USD; moments are whole Unix seconds; null is "none".
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

# The last second of the year 9999, where the contract's moments end.
UNIX_SECONDS_MAX = 253_402_300_799
RETENTION_DAYS_MAX = 3650
OVERLAP_S_DEFAULT = 86_400
OVERLAP_S_MAX = 30 * 86_400

UnixSeconds = Annotated[int, Meta(ge=0, le=UNIX_SECONDS_MAX, description="Unix time in whole seconds.")]
Usd = Annotated[
    str,
    Meta(pattern=r"^-?[0-9]+\.[0-9]{2,9}$", description="An exact amount in USD; nine decimals are one nano-USD."),
]
# What would be right, where neither a type's name nor a service says it in the API's words. By the field's name.
CHOICES = {
    "scopes": "give `inference`, `management` or both",
    "period": "give `day` or `month`",
    "amount_usd": 'give USD as a text, more than zero and at most 1000000000, such as "25.00"',
}
UsdLimit = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,10}(\.[0-9]{1,9})?$",
        description="An exact amount in USD of more than zero, at most 1000000000, such as `25.00`.",
    ),
]
Name = Annotated[
    str, Meta(min_length=1, max_length=100, description="For people; printable, without white space around it.")
]
ModelId = Annotated[str, Meta(min_length=1, max_length=200)]
Models = Annotated[list[ModelId], Meta(min_length=1, max_length=1000, description="The only models that it may use.")]
ScopeName = Literal["inference", "management"]
Scopes = Annotated[list[ScopeName], Meta(min_length=1, max_length=2)]
RetentionDays = Annotated[
    int, Meta(ge=1, le=RETENTION_DAYS_MAX, description="For how many days what is logged is kept; null: the default.")
]


class Limits(Struct, forbid_unknown_fields=True):
    """How much a key may ask for: the operator's preset by its name, or numbers; null means no limit of that kind."""

    tier: Annotated[str, Meta(min_length=1, max_length=50)] | None = None
    requests_per_minute: Annotated[int, Meta(ge=1, le=10**7)] | None = None
    tokens_per_minute: Annotated[int, Meta(ge=1, le=10**12)] | None = None
    concurrent_requests: Annotated[int, Meta(ge=1, le=10**6)] | None = None


class SpendLimit(Struct, forbid_unknown_fields=True):
    """How much a key may spend within a day or a month, in UTC."""

    amount_usd: UsdLimit
    period: Literal["day", "month"]


class KeyCreate(Struct, forbid_unknown_fields=True):
    """A key to be made."""

    name: Name
    scopes: Scopes = msgspec.field(default_factory=lambda: ["inference"])
    expires_at: UnixSeconds | None = None
    models: Models | None = None
    limits: Limits | None = None
    spend_limit: SpendLimit | None = None
    log_inputs: bool = False
    log_outputs: bool = False
    retention_days: RetentionDays | None = None


class KeyUpdate(Struct, forbid_unknown_fields=True):
    """New values of what is named; what is not stays."""

    name: Name | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    expires_at: UnixSeconds | UnsetType | None = UNSET
    models: Models | UnsetType | None = UNSET
    limits: Limits | UnsetType | None = UNSET
    spend_limit: SpendLimit | UnsetType | None = UNSET
    log_inputs: bool | UnsetType = UNSET
    log_outputs: bool | UnsetType = UNSET
    retention_days: RetentionDays | UnsetType | None = UNSET


class KeyRotate(Struct, forbid_unknown_fields=True):
    """How a key is replaced."""

    overlap_seconds: Annotated[
        int, Meta(ge=0, le=OVERLAP_S_MAX, description="For how long the old key goes on working; 0 revokes it at once.")
    ] = OVERLAP_S_DEFAULT
    expires_at: Annotated[
        UnixSeconds | None, Meta(description="When the new key stops working; null: when the old one would have.")
    ] = None


class Key(Struct):
    """An API key without its secret."""

    id: str
    name: str
    redacted_value: Annotated[str, Meta(description="The secret's first characters.")]
    status: Literal["active", "expired", "revoked"]
    scopes: list[ScopeName]
    created_at: UnixSeconds
    expires_at: UnixSeconds | None
    revoked_at: UnixSeconds | None
    last_used_at: Annotated[
        UnixSeconds | None, Meta(description="The end of its latest request; null: never, or not known right now.")
    ]
    models: Annotated[list[ModelId] | None, Meta(description="null: all.")]
    limits: Limits | None
    spend_limit: SpendLimit | None
    log_inputs: bool
    log_outputs: bool
    retention_days: RetentionDays | None
    object: Literal["key"] = "key"


class KeyWithSecret(Key, kw_only=True):
    """A new key. The secret is shown here and never again."""

    secret: str


class KeyRotated(KeyWithSecret, kw_only=True):
    """The new key, and the old one as it now stands."""

    rotated_key: Key


class KeyDeleted(Struct):
    """A key that works no more."""

    id: str
    object: Literal["key.deleted"] = "key.deleted"
    deleted: Literal[True] = True


class KeyList(Struct):
    """Keys, newest first."""

    data: list[Key]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class Balance(Struct):
    """Where the account stands."""

    balance_usd: Annotated[Usd, Meta(description="Credits and refunds minus charges.")]
    held_usd: Annotated[Usd, Meta(description="Of it, set aside now for requests in flight and about to come.")]
    available_usd: Annotated[Usd, Meta(description="The balance without what is held.")]
    grace_usd: Annotated[Usd, Meta(description="How far below zero the account may go.")]
    credits_usd: Annotated[Usd, Meta(description="All credits so far.")]
    spent_today_usd: Annotated[Usd, Meta(description="Since midnight UTC, refunds deducted.")]
    spent_this_month_usd: Annotated[Usd, Meta(description="Since the first of the month in UTC, refunds deducted.")]
    object: Literal["balance"] = "balance"


class UsageSums(Struct):
    """Exact sums over finished requests. Cached tokens are part of the prompt's, reasoning of the completion's."""

    requests: int
    errors: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_usd: Annotated[Usd, Meta(description="What was charged.")]
    refunded_usd: Annotated[Usd, Meta(description="Of it, what was given back since.")]


class UsageRow(UsageSums, kw_only=True):
    """One row. What the rows are not grouped by is null."""

    start_time: UnixSeconds | None
    end_time: UnixSeconds | None
    model: str | None
    key_id: str | None
    object: Literal["usage"] = "usage"


class UsageList(Struct):
    """Sums by time, model and key, sorted by these; `total` sums all rows."""

    data: list[UsageRow]
    total: UsageSums
    object: Literal["list"] = "list"
    has_more: Literal[False] = False


class Refund(Struct):
    """A part of a charge that was given back."""

    amount_usd: Usd
    reason: str
    created_at: UnixSeconds


class RequestTokens(Struct):
    """What the model counted."""

    prompt_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    audio_tokens: int
    image_tokens: int
    images: int


class RequestPrice(Struct):
    """The price at admission: decimal texts in USD per token, image or request; null: as `prompt`, or nothing."""

    version: str
    prompt: str | None
    completion: str | None
    input_cache_read: str | None
    input_cache_write: str | None
    image: str | None
    request: str | None


class FinishedRequest(Struct):
    """One finished generation, and its bill."""

    id: Annotated[str, Meta(description="The `x-request-id` of its answer.")]
    created_at: UnixSeconds
    completed_at: UnixSeconds
    endpoint: str
    model: str
    key_id: str
    status: Annotated[int, Meta(description="The HTTP status that the client got.")]
    ending: Literal["completed", "client_gone", "upstream_failed", "edge_lost", "unknown"]
    outcome: Annotated[
        Literal["measured", "estimated", "waived", "none", "edge_lost", "unknown"],
        Meta(description="What became of its bill: only measured and estimated ones are charged."),
    ]
    usage_source: Literal["upstream_final", "upstream_partial", "estimated", "none", "unknown"]
    streamed: bool
    usage: RequestTokens
    price: RequestPrice | None
    cost_usd: Usd
    refunded_usd: Usd
    refunds: list[Refund]
    time_to_first_byte_ms: int | None
    duration_ms: int
    object: Literal["request"] = "request"


class RequestList(Struct):
    """Finished requests, newest first."""

    data: list[FinishedRequest]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"
