"""Bearer secrets that can be told from garbage without asking anybody: prefix, random body, checksum.

    <prefix><33 base62 characters: 192 random bits><6 base62 characters: CRC-32 of all before>

The form is GitHub's (https://github.blog/engineering/behind-githubs-new-authentication-token-formats/). Base62 passes
through URLs, headers and shells as it is, and a double click selects all of it. CRC-32 finds every burst of up to 32
bits, so no token with one character changed is well formed. The checksum keeps typing errors and scanners away from the
database; it is no protection, since anybody can compute it.
"""

import hashlib
import re
import zlib

ENTROPY_BYTES = 24
PUBLIC_BODY_CHARS = 8

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # ASCII order
_BODY_CHARS = 33  # 62**33 > 2**192
_CHECKSUM_CHARS = 6  # 62**6 > 2**32
_TAIL_CHARS = _BODY_CHARS + _CHECKSUM_CHARS
_TAIL = re.compile(f"[0-9A-Za-z]{{{_TAIL_CHARS}}}")


def make(prefix: str, random_bytes: bytes) -> str:
    """A new token. `random_bytes` come from a generator fit for secrets: `secrets.token_bytes(ENTROPY_BYTES)`.

    Raises:
        ValueError: not exactly ENTROPY_BYTES; a bug in the caller.
    """
    if len(random_bytes) != ENTROPY_BYTES:
        raise ValueError(f"{len(random_bytes)} random bytes, not {ENTROPY_BYTES}")
    head = prefix + base62(int.from_bytes(random_bytes), _BODY_CHARS)
    return head + _checksum(head)


def well_formed(token: str, prefix: str) -> bool:
    """Whether a token has the prefix, the length, the alphabet and a right checksum."""
    if len(token) != len(prefix) + _TAIL_CHARS or not token.startswith(prefix):
        return False
    if _TAIL.fullmatch(token, len(prefix)) is None:
        return False
    return token[-_CHECKSUM_CHARS:] == _checksum(token[:-_CHECKSUM_CHARS])


def public_prefix(token: str) -> str:
    """The part of a well-formed token that may be shown and logged; more than 140 random bits stay secret."""
    return token[: PUBLIC_BODY_CHARS - _TAIL_CHARS]


def digest(token: str) -> bytes:
    """SHA-256 of a token: what travels in its place. Passwords need slow hashes, 192 random bits do not."""
    return hashlib.sha256(token.encode()).digest()


def base62(number: int, chars: int) -> str:
    """A number in base 62 at a fixed width, so that the order of such strings in ASCII is the order of their numbers.

    Raises:
        ValueError: negative, or too large for the width.
    """
    if not 0 <= number < 62**chars:
        raise ValueError(f"{number} does not fit {chars} base62 characters")
    digits = []
    for _ in range(chars):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _checksum(head: str) -> str:
    return base62(zlib.crc32(head.encode()), _CHECKSUM_CHARS)
