"""Bearer secrets: what is well formed, and that nearly right is not."""

import hashlib
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis import secret_token

PREFIX = "tg_"
_CHARACTERS = string.digits + string.ascii_letters + "_-. é\0"

random_bytes = st.binary(min_size=secret_token.ENTROPY_BYTES, max_size=secret_token.ENTROPY_BYTES)


@given(random_bytes)
def test_a_new_token_is_well_formed(drawn: bytes) -> None:
    token = secret_token.make(PREFIX, drawn)
    assert secret_token.well_formed(token, PREFIX)
    assert len(token) == 42
    assert token.isascii()
    assert token.removeprefix(PREFIX).isalnum()


@given(random_bytes, random_bytes)
def test_different_randomness_makes_different_tokens(one: bytes, other: bytes) -> None:
    assert (secret_token.make(PREFIX, one) == secret_token.make(PREFIX, other)) == (one == other)


@settings(max_examples=20)  # each example is 2,800 tokens
@given(random_bytes)
def test_every_single_character_changed_is_refused(drawn: bytes) -> None:
    token = secret_token.make(PREFIX, drawn)
    for position, right in enumerate(token):
        for wrong in _CHARACTERS.replace(right, ""):
            assert not secret_token.well_formed(token[:position] + wrong + token[position + 1 :], PREFIX)


@given(random_bytes)
def test_two_neighbours_swapped_cut_or_repeated_are_refused(drawn: bytes) -> None:
    token = secret_token.make(PREFIX, drawn)
    for position in range(len(token) - 1):
        a, b = token[position], token[position + 1]
        if a != b:
            assert not secret_token.well_formed(token[:position] + b + a + token[position + 2 :], PREFIX)
        assert not secret_token.well_formed(token[:position] + token[position + 1 :], PREFIX)
        assert not secret_token.well_formed(token[:position] + a + token[position:], PREFIX)


@given(st.text(max_size=60))
def test_arbitrary_text_is_refused_and_never_raises(text: str) -> None:
    assert not secret_token.well_formed(text, PREFIX)
    assert not secret_token.well_formed(PREFIX + text, PREFIX)


@pytest.mark.parametrize("around", ["{} ", " {}", "{}\n", "{}\0", "Bearer {}"])
def test_whitespace_around_a_token_is_refused(around: str) -> None:
    token = secret_token.make(PREFIX, bytes(range(24)))
    assert not secret_token.well_formed(around.format(token), PREFIX)


def test_a_token_of_another_prefix_is_refused() -> None:
    assert not secret_token.well_formed(secret_token.make("xx_", bytes(24)), PREFIX)


def test_the_format_does_not_change_between_releases() -> None:
    # Tokens live for years: these were made by the first release.
    assert secret_token.make(PREFIX, bytes(range(24))) == "tg_000A7dl5PEW67zZCpFU9uKaHnGgOvQKAR3NcG50"
    assert secret_token.make(PREFIX, b"\xff" * 24) == "tg_2lFA6LboL2xx0ldQH2K1TdSrwuqMMiME32JSu4s"


def test_the_public_prefix_shows_eight_characters_and_the_digest_is_plain_sha256() -> None:
    token = secret_token.make(PREFIX, bytes(range(24)))
    assert secret_token.public_prefix(token) == token[:11]
    assert secret_token.digest(token) == hashlib.sha256(token.encode()).digest()


@pytest.mark.parametrize("size", [0, 23, 25])
def test_too_little_or_too_much_randomness_is_a_bug(size: int) -> None:
    with pytest.raises(ValueError, match="random bytes"):
        secret_token.make(PREFIX, bytes(size))


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1))
def test_base62_of_a_fixed_width_keeps_the_order_of_numbers(one: int, other: int) -> None:
    assert (secret_token.base62(one, 22) < secret_token.base62(other, 22)) == (one < other)


@pytest.mark.parametrize("number", [-1, 62**6])
def test_base62_refuses_what_does_not_fit(number: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        secret_token.base62(number, 6)
