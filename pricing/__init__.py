"""Pure rules about money that several processes need: token usage and a price in, nano-USD out; USD as text.

The edge bounds a hold with it and reports a request's cost; usage_svc rates the same event with it, so both always
agree. No I/O and nothing else may live here (docs/billing.md, "Money"; held by tests/unit/test_architecture.py).
"""

from pricing.price import MAX_PRICE_DECIMALS, MAX_PRICE_USD, Price
from pricing.rating import charge_nanousd, charges_nanousd, hold_nanousd, is_plausible
from pricing.token_usage import TokenUsage

__all__ = [
    "MAX_PRICE_DECIMALS",
    "MAX_PRICE_USD",
    "Price",
    "TokenUsage",
    "charge_nanousd",
    "charges_nanousd",
    "hold_nanousd",
    "is_plausible",
]
