"""USD as people read prices."""

from decimal import Decimal


def usd_per_million(usd_per_unit: str) -> str:
    """A price per token as people compare prices, per million tokens: `0.0000001` is `0.10`."""
    whole, _, decimals = f"{Decimal(usd_per_unit) * 1_000_000:f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"
