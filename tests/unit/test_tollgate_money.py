"""Amounts of money as the command reads and writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.usd import nanousd_from_usd, usd_from_nanousd
from tollgate.money import usd_per_million


@given(st.integers(min_value=-(10**18), max_value=10**18))
def test_every_amount_survives_writing_and_reading(nanousd: int) -> None:
    assert nanousd_from_usd(usd_from_nanousd(nanousd)) == nanousd


@pytest.mark.parametrize(
    ("text", "nanousd"),
    [
        ("5", 5_000_000_000),
        ("5.00", 5_000_000_000),
        ("0.000000001", 1),
        ("-0.25", -250_000_000),
        ("007", 7_000_000_000),
    ],
)
def test_plain_decimals_are_read_exactly(text: str, nanousd: int) -> None:
    assert nanousd_from_usd(text) == nanousd


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1e3",
        "1E3",
        "5.",
        ".5",
        "+5",
        "5,00",
        "1_000",
        " 5",
        "5 USD",
        "$5",
        "nan",
        "inf",
        "--5",
        "0x10",
        "٥",
        "5.0\n",
    ],
)
def test_what_is_not_a_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 5\.00"):
        nanousd_from_usd(text)


def test_a_tenth_decimal_is_refused_rather_than_rounded() -> None:
    with pytest.raises(ValueError, match="10 decimals"):
        nanousd_from_usd("0.0000000001")


@pytest.mark.parametrize("text", ["1000000001", "9" * 30])
def test_more_than_a_ledger_entry_can_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="too much"):
        nanousd_from_usd(text)


@pytest.mark.parametrize(("nanousd", "text"), [(0, "0.00"), (-1, "-0.000000001"), (4_999_941_050, "4.99994105")])
def test_amounts_are_written_without_an_exponent(nanousd: int, text: str) -> None:
    assert usd_from_nanousd(nanousd) == text


@pytest.mark.parametrize(
    ("per_unit", "per_million"),
    [("0.0000001", "0.10"), ("0.00000028", "0.28"), ("0", "0.00"), ("0.000000000015", "0.000015")],
)
def test_prices_are_shown_per_million_tokens(per_unit: str, per_million: str) -> None:
    assert usd_per_million(per_unit) == per_million
