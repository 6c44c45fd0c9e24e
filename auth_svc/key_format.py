"""What a key's secret looks like, and the one form in which it is stored."""

import hmac
import secrets
from collections.abc import Callable

from chassis import secret_token
from chassis.faults import InvalidArgument

SECRET_PREFIX = "tg_"  # noqa: S105 - public: how a key is recognised; the edge tests for the same
KEY_SHA256_BYTES = 32

# Gives so many bytes that nobody can guess.
RandomBytes = Callable[[int], bytes]


def new_secret(random_bytes: RandomBytes = secrets.token_bytes) -> str:
    """Draws a secret."""
    return secret_token.make(SECRET_PREFIX, random_bytes(secret_token.ENTROPY_BYTES))


def imported_secret(secret: str) -> str:
    """A secret that the operator brings.

    Raises:
        InvalidArgument: not in the key format. The message does not repeat it.
    """
    if not secret_token.well_formed(secret, SECRET_PREFIX):
        raise InvalidArgument(
            "secret",
            f"not a key: {SECRET_PREFIX!r} and 39 letters and digits with a right checksum, as CreateKey draws them; "
            "leave it empty to have one drawn",
        )
    return secret


def stored_hash(key_sha256: bytes, pepper: bytes) -> bytes:
    """What the database holds of a key: HMAC-SHA-256 of the secret's SHA-256 under the pepper.

    Who reads the database without the settings can neither use a key nor test a guess, and who can write to it cannot
    forge one.

    Raises:
        InvalidArgument: not 32 bytes.
    """
    if len(key_sha256) != KEY_SHA256_BYTES:
        raise InvalidArgument("key_sha256", f"{len(key_sha256)} bytes, not the {KEY_SHA256_BYTES} of a SHA-256")
    return hmac.digest(pepper, key_sha256, "sha256")


def pepper_check(pepper: bytes) -> bytes:
    """Tells peppers apart without giving them away: kept in the database, so that a wrong one is noticed at start."""
    return hmac.digest(pepper, b"tollgate auth_svc: is this the pepper?", "sha256")
