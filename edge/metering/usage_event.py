"""One request's outcome as the edge spools it: the contract's Record.event_row, field by field."""

from typing import NamedTuple

import msgspec

EVENT_SCHEMA = 1


class Attempt(NamedTuple):
    """One call to one upstream."""

    deployment_id: str
    status_code: int
    failure: str  # "" if it did not fail
    duration_ms: int


class UsageEvent(msgspec.Struct, array_like=True, gc=False):
    """What the contract's UsageEvent says, flat. Another field is another schema.

    Enums are the contract's numbers, times are microseconds since 1970, `price` is a serialized PriceVector.
    """

    schema: int = EVENT_SCHEMA
    price: bytes = b""
    request_id: str = ""
    account_id: str = ""
    lease_id: str = ""
    key_id: str = ""
    model_id: str = ""
    deployment_id: str = ""
    resource: int = 0
    status_code: int = 0
    streamed: bool = False
    outcome: int = 0
    source: int = 0
    ending: int = 0
    hold_nanousd: int = 0
    plausible_tokens_max: int = 0
    first_byte_ms: int = 0
    duration_ms: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    images: int = 0
    admit_time_us: int = 0
    end_time_us: int = 0
    attempts: list[Attempt] = []


encode_event = msgspec.msgpack.Encoder().encode
decode_event = msgspec.msgpack.Decoder(UsageEvent).decode
