"""Usage events as edges write them: the contract's Record.event_row, an array of MessagePack.

Its fields are schema, price, then a UsageEvent up to its attempts. A row is read by itself, or a batch of them into
columns; the second also holds every number to the bounds of the gate, in the decoder, where it costs next to nothing.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from google.protobuf.message import DecodeError

from protos.usage.v1 import usage_pb2 as pb
from usage_svc.events import (
    SCHEMA_KNOWN,
    TOKEN_FIELDS,
    DamagedRecord,
    EventColumns,
    EventRecord,
    NewerRecord,
    PriceTerms,
    Record,
    UsageEvent,
)
from usage_svc.ledger import MAX_AMOUNT_NANOUSD
from usage_svc.rating import END_OF_TIME_US, MAX_DURATION_MS, MAX_IMAGES, MAX_TOKENS

_INT32_MAX, _INT64_MAX = 2**31 - 1, 2**63 - 1
# Numbers are as wide as their columns in the database.
_Int32 = Annotated[int, msgspec.Meta(ge=-_INT32_MAX - 1, le=_INT32_MAX)]
_Int64 = Annotated[int, msgspec.Meta(ge=-_INT64_MAX - 1, le=_INT64_MAX)]
_WIDTHS = {name: _Int64 if kind is int else kind for name, kind in UsageEvent.__annotations__.items()}
_WIDTHS |= {"status_code": _Int32, "attempts": tuple[tuple[str, _Int32, str, _Int64], ...]}
del _WIDTHS["price_version"]


def _to(most: int, least: int = 0) -> Any:
    return Annotated[int, msgspec.Meta(ge=least, le=most)]


_WIDTHS_IN_BOUNDS = {
    **_WIDTHS,
    **dict.fromkeys(TOKEN_FIELDS, _to(MAX_TOKENS)),
    "images": _to(MAX_IMAGES),
    "hold_nanousd": _to(MAX_AMOUNT_NANOUSD),
    "plausible_tokens_max": _to(_INT64_MAX),
    "first_byte_ms": _to(MAX_DURATION_MS),
    "duration_ms": _to(MAX_DURATION_MS),
    "admit_time_us": _to(END_OF_TIME_US - 1, least=1),
    "end_time_us": _to(END_OF_TIME_US - 1, least=1),
}

_RowDecoder = Callable[[bytes], tuple[Any, ...]]


def _row_decoder(schema: Any, kinds: Mapping[str, Any]) -> _RowDecoder:
    return msgspec.msgpack.Decoder(tuple.__class_getitem__((schema, bytes, *kinds.values()))).decode


_row_from_bytes = _row_decoder(_Int64, _WIDTHS)
_row_in_bounds_from_bytes = _row_decoder(_to(SCHEMA_KNOWN, least=SCHEMA_KNOWN), _WIDTHS_IN_BOUNDS)
_anything_from_bytes = msgspec.msgpack.Decoder().decode
_new = tuple.__new__  # a named tuple's own constructor is a Python function of twice the cost


def record_from_row(encoded: bytes) -> Record:
    """Never raises: what cannot be posted says why, and what a newer edge wrote says that it is newer."""
    try:
        schema, price, *fields, attempts = _row_from_bytes(encoded)
        terms = terms_from_bytes(price)
        event = _new(UsageEvent, (*fields, _attempts_to_bytes(attempts), terms.price_version))
    except (ValueError, DecodeError):
        return NewerRecord() if _is_newer(encoded) else DamagedRecord("ROW_INVALID")
    return _new(EventRecord, (event, schema, terms))


def columns_from_rows(encoded: Sequence[bytes]) -> EventColumns | None:
    """A batch that is nothing but rows; None where one of them must be looked at by itself."""
    try:
        _, prices, *fields, attempts = zip(*map(_row_in_bounds_from_bytes, encoded), strict=True)
        columns = (*fields, list(map(_attempts_to_bytes, attempts)))
        if prices.count(prices[0]) == len(prices):
            terms = terms_from_bytes(prices[0])
            return EventColumns((*columns, [terms.price_version] * len(prices)), [terms] * len(prices), (terms,))
        by_price = {price: terms_from_bytes(price) for price in dict.fromkeys(prices)}
    except (ValueError, DecodeError):
        return None
    of_each = [by_price[price] for price in prices]
    versions = [terms.price_version for terms in of_each]
    return EventColumns((*columns, versions), of_each, tuple(by_price.values()))


def _is_newer(encoded: bytes) -> bool:
    try:
        row = _anything_from_bytes(encoded)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, list) and bool(row) and isinstance(row[0], int) and row[0] > SCHEMA_KNOWN


@functools.lru_cache(maxsize=10_000)
def _attempts_to_bytes(attempts: tuple[tuple[str, int, str, int], ...]) -> bytes:
    # Cached, since nearly all are one call to one of a few deployments that took some milliseconds.
    messages = [
        pb.Attempt(deployment_id=deployment_id, status_code=status_code, failure=failure, duration_ms=duration_ms)
        for deployment_id, status_code, failure, duration_ms in attempts
    ]
    return pb.UsageEvent(attempts=messages).SerializeToString()


@functools.lru_cache(maxsize=1000)
def terms_from_bytes(price_vector: bytes) -> PriceTerms:
    """The contract's PriceVector. Cached by its bytes, since nearly all events of a batch share a handful.

    Raises:
        DecodeError: it is none.
    """
    price = pb.PriceVector.FromString(price_vector)
    return PriceTerms(
        price.price_version,
        price.prompt,
        price.completion,
        price.input_cache_read,
        price.input_cache_write,
        price.image,
        price.request,
    )
