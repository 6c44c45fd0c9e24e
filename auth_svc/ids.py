"""Public ids of accounts and keys: a prefix and a UUID of version 7, so that their order is that of creation."""

import re
from collections.abc import Callable
from uuid import UUID

from chassis.faults import InvalidArgument
from chassis.secret_token import base62

ACCOUNT_PREFIX = "acct_"
KEY_PREFIX = "key_"
ID_CHARS_MAX = 27

_UUID_CHARS = 22  # 62**22 > 2**128
_TAIL = re.compile(f"[0-9A-Za-z]{{{_UUID_CHARS}}}")

# Gives a UUID of version 7 that is greater than every one that it gave before.
NewUuid = Callable[[], UUID]


def account_id(uuid: UUID) -> str:
    """The id of a new account."""
    return ACCOUNT_PREFIX + base62(uuid.int, _UUID_CHARS)


def key_id(uuid: UUID) -> str:
    """The id of a new key."""
    return KEY_PREFIX + base62(uuid.int, _UUID_CHARS)


def require_given(field: str, text: str) -> None:
    """Refuses a call that does not say which one it means. An id that cannot be is one that is not there: NOT_FOUND.

    Raises:
        InvalidArgument: it is empty.
    """
    if not text:
        raise InvalidArgument(field, "is empty: say which one")


def is_account_id(text: str) -> bool:
    """Whether this could be an account's id; what cannot be needs no look-up."""
    return text.startswith(ACCOUNT_PREFIX) and _TAIL.fullmatch(text, len(ACCOUNT_PREFIX)) is not None


def is_key_id(text: str) -> bool:
    """Whether this could be a key's id; what cannot be needs no look-up."""
    return text.startswith(KEY_PREFIX) and _TAIL.fullmatch(text, len(KEY_PREFIX)) is not None
