"""Pagination by opaque tokens: a token is the key of the last row that was shown."""

import base64
import binascii
import hashlib
import re

from chassis.faults import InvalidArgument

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
_CHECK_BYTES = 6


def page_size(requested: int) -> int:
    """The size to use for a request's `page_size`.

    Raises:
        InvalidArgument: negative or above the maximum.
    """
    if not 0 <= requested <= MAX_PAGE_SIZE:
        raise InvalidArgument("page_size", f"{requested} is not from 0 (the default) to {MAX_PAGE_SIZE}")
    return requested or DEFAULT_PAGE_SIZE


def page_token(last_key: str, query: str) -> str:
    """A token that continues `query` (the listing and its filters, so that a token fits no other) after `last_key`."""
    key = last_key.encode()
    return base64.urlsafe_b64encode(_check(key, query) + key).decode().rstrip("=")


def key_from_page_token(token: str, query: str) -> str:
    """The last key of the page before; empty for an empty token.

    Raises:
        InvalidArgument: the token was altered, or belongs to another query.
    """
    if not token:
        return ""
    try:
        decoded = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        check, key = decoded[:_CHECK_BYTES], decoded[_CHECK_BYTES:]
        if key and check == _check(key, query):
            return key.decode()
    except (binascii.Error, ValueError):
        pass
    raise _not_of_this_listing()


def place_token(place: tuple[int, int | str], query: str) -> str:
    """The token of a listing that is ordered by a number and an id: of the last row that was shown."""
    return page_token(f"{place[0]} {place[1]}", query)


def place_from_page_token(token: str, query: str) -> tuple[int, str] | None:
    """The number and the id of the last row of the page before; None for an empty token.

    Raises:
        InvalidArgument: as `key_from_page_token`, and where somebody made a token that holds no place.
    """
    key = key_from_page_token(token, query)
    if not key:
        return None
    number, _, row_id = key.partition(" ")
    if _NUMBER.fullmatch(number) is None or not row_id or "\0" in row_id:
        raise _not_of_this_listing()
    return int(number), row_id


def numbered_place_from_page_token(token: str, query: str) -> tuple[int, int] | None:
    """The same of a listing whose ids are numbers."""
    place = place_from_page_token(token, query)
    if place is None:
        return None
    if _NUMBER.fullmatch(place[1]) is None:
        raise _not_of_this_listing()
    return place[0], int(place[1])


_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def _not_of_this_listing() -> InvalidArgument:
    return InvalidArgument("page_token", "not a token of this listing: repeat the call without it to start anew")


def _check(key: bytes, query: str) -> bytes:
    return hashlib.sha256(query.encode() + b"\0" + key).digest()[:_CHECK_BYTES]
