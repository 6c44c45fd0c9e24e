"""The one rule for money: exact against fractions, rounded once, and never above a hold that was taken for it."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing import MAX_PRICE_DECIMALS, MAX_PRICE_USD, Price, TokenUsage, charge_nanousd, charges_nanousd, hold_nanousd

RATE = st.decimals(0, MAX_PRICE_USD, places=MAX_PRICE_DECIMALS, allow_nan=False) | st.sampled_from(
    [Decimal(0), Decimal("0.0000001"), Decimal("0.00000028"), Decimal("5E-10"), Decimal("1.5E-9")]
)
PRICES = st.builds(
    Price,
    prompt=RATE,
    completion=RATE,
    input_cache_read=st.none() | RATE,
    input_cache_write=st.none() | RATE,
    image=RATE,
    request=RATE,
)
COUNT = st.integers(0, 2_000_000)
USAGES = st.builds(
    TokenUsage,
    prompt_tokens=COUNT,
    completion_tokens=COUNT,
    cached_tokens=COUNT,
    cache_write_tokens=COUNT,
    images=st.integers(0, 100),
)


def exact_nanousd(usage: TokenUsage, price: Price) -> Fraction:
    """The same rule in fractions, written from the words of docs/billing.md."""
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
    read_rate = price.prompt if price.input_cache_read is None else price.input_cache_read
    write_rate = price.prompt if price.input_cache_write is None else price.input_cache_write
    usd = (
        (usage.prompt_tokens - cached - written) * Fraction(price.prompt)
        + cached * Fraction(read_rate)
        + written * Fraction(write_rate)
        + usage.completion_tokens * Fraction(price.completion)
        + usage.images * Fraction(price.image)
        + Fraction(price.request)
    )
    return usd * 10**9


@given(USAGES, PRICES)
def test_a_charge_is_the_exact_sum_rounded_half_even_once(usage: TokenUsage, price: Price) -> None:
    assert charge_nanousd(usage, price) == round(exact_nanousd(usage, price))  # Fraction rounds half-even


@given(st.lists(USAGES, min_size=1, max_size=5), PRICES)
def test_many_charges_of_one_price_are_each_ones_charge(usages: list[TokenUsage], price: Price) -> None:
    columns = list(zip(*usages, strict=True))
    assert charges_nanousd(columns, price) == [charge_nanousd(usage, price) for usage in usages]


def test_many_charges_refuse_what_one_refuses() -> None:
    price = Price(Decimal(1), Decimal(1))
    with pytest.raises(ValueError, match="negative"):
        charges_nanousd([[0, 1], [0, -1], *([[0, 0]] * 6)], price)
    with pytest.raises(ValueError, match="shorter"):
        charges_nanousd([[0, 1], [0], *([[0, 0]] * 6)], price)
    assert charges_nanousd([[]] * 8, price) == []


@given(USAGES, PRICES, COUNT, COUNT, st.integers(0, 100))
def test_a_hold_covers_every_charge_within_its_bounds(
    usage: TokenUsage, price: Price, more_prompt: int, more_completion: int, more_images: int
) -> None:
    hold = hold_nanousd(
        usage.prompt_tokens + more_prompt,
        usage.completion_tokens + more_completion,
        price,
        usage.images + more_images,
    )
    assert hold >= charge_nanousd(usage, price)


@given(COUNT, COUNT, PRICES)
def test_a_hold_is_the_dearest_case_rounded_up(prompt: int, completion: int, price: Price) -> None:
    rates = [price.prompt, price.input_cache_read, price.input_cache_write]
    dearest = max(Fraction(rate) for rate in rates if rate is not None)
    exact = (prompt * dearest + completion * Fraction(price.completion) + Fraction(price.request)) * 10**9
    assert hold_nanousd(prompt, completion, price) == math.ceil(exact)


@given(USAGES, PRICES, st.integers(0, 1000))
def test_more_tokens_never_cost_less(usage: TokenUsage, price: Price, more: int) -> None:
    with_more = TokenUsage(
        usage.prompt_tokens + more,
        usage.completion_tokens + more,
        usage.cached_tokens,
        usage.cache_write_tokens,
        images=usage.images + more,
    )
    plain = TokenUsage(usage.prompt_tokens, usage.completion_tokens, images=usage.images)
    plain_more = TokenUsage(usage.prompt_tokens + more, usage.completion_tokens + more, images=usage.images + more)
    assert charge_nanousd(plain_more, price) >= charge_nanousd(plain, price)
    if usage.cached_tokens + usage.cache_write_tokens <= usage.prompt_tokens:
        assert charge_nanousd(with_more, price) >= charge_nanousd(usage, price)


@pytest.mark.parametrize(
    ("rate", "tokens", "charge"),
    [("0.0000000005", 1, 0), ("0.0000000005", 3, 2), ("0.0000000005", 5, 2), ("0.00000000050000001", 1, 1)],
)
def test_half_a_nano_goes_to_the_even_one(rate: str, tokens: int, charge: int) -> None:
    price = Price(prompt=Decimal(rate), completion=Decimal(0))
    assert charge_nanousd(TokenUsage(prompt_tokens=tokens), price) == charge


def test_reasoning_and_audio_are_parts_of_what_is_charged_already() -> None:
    price = Price(prompt=Decimal("0.000001"), completion=Decimal("0.000002"))
    plain = TokenUsage(prompt_tokens=10, completion_tokens=10)
    detailed = TokenUsage(10, 10, reasoning_tokens=9, audio_tokens=8, image_tokens=7)
    assert charge_nanousd(plain, price) == charge_nanousd(detailed, price) == 30_000


def test_a_price_without_a_cache_rate_charges_cached_tokens_as_plain_ones() -> None:
    price = Price(prompt=Decimal("0.000001"), completion=Decimal(0))
    assert charge_nanousd(TokenUsage(100, cached_tokens=60, cache_write_tokens=10), price) == 100_000


def test_more_cached_tokens_than_the_prompt_has_are_clamped_to_it() -> None:
    price = Price(prompt=Decimal("0.000001"), completion=Decimal(0), input_cache_read=Decimal("0.0000001"))
    assert charge_nanousd(TokenUsage(100, cached_tokens=500, cache_write_tokens=500), price) == 10_000


@pytest.mark.parametrize(
    "name", ["prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "images"]
)
def test_a_negative_count_is_a_bug_of_the_caller(name: str) -> None:
    with pytest.raises(ValueError, match="negative"):
        charge_nanousd(TokenUsage(**{name: -1}), Price(prompt=Decimal(1), completion=Decimal(1)))


@pytest.mark.parametrize("bounds", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_a_negative_bound_is_a_bug_of_the_caller(bounds: tuple[int, int, int]) -> None:
    price = Price(prompt=Decimal(1), completion=Decimal(1))
    with pytest.raises(ValueError, match="negative"):
        hold_nanousd(bounds[0], bounds[1], price, bounds[2])


@pytest.mark.parametrize("name", ["prompt", "completion", "input_cache_read", "input_cache_write", "image", "request"])
@pytest.mark.parametrize("value", ["-0.1", "1000.1", "NaN", "Infinity", "1E-19"])
def test_a_price_out_of_bounds_names_its_field(name: str, value: str) -> None:
    rates = {"prompt": Decimal(0), "completion": Decimal(0), name: Decimal(value)}
    with pytest.raises(ValueError, match=f"price {name}"):
        Price(**rates)


def test_prices_are_equal_by_value_and_not_by_spelling() -> None:
    assert Price(Decimal("0.10"), Decimal(1)) == Price(Decimal("0.1"), Decimal("1.0"))
    assert Price(Decimal("0.1"), Decimal(1)) != Price(Decimal("0.1"), Decimal(1), input_cache_read=Decimal("0.1"))
