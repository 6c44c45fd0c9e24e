"""What a model costs: exact decimals in USD per single unit."""

from dataclasses import dataclass, field
from decimal import Decimal

# A price is at most this many USD per unit and has at most this many decimal places: with both bounded, every product
# below stays an exact integer and a request's cost fits an int64 of nano-USD.
MAX_PRICE_USD = Decimal(1000)
MAX_PRICE_DECIMALS = 18

_SCALE: int = 10**MAX_PRICE_DECIMALS


@dataclass(frozen=True, slots=True)
class Price:
    """One version of a model's price. All values are USD per single unit (token, image, request).

    `input_cache_read` and `input_cache_write` of None mean that the model has no such price: those tokens then cost
    `prompt`. The `*_atto` twins are the same values as integers of 1e-18 USD, so that rating never touches a float and
    never sets a decimal context.

    Raises:
        ValueError: a negative, non-finite, too large or too precise value; the message names the field.
    """

    prompt: Decimal
    completion: Decimal
    input_cache_read: Decimal | None = None
    input_cache_write: Decimal | None = None
    image: Decimal = Decimal(0)
    request: Decimal = Decimal(0)
    prompt_atto: int = field(init=False, repr=False, compare=False)
    completion_atto: int = field(init=False, repr=False, compare=False)
    cache_read_atto: int = field(init=False, repr=False, compare=False)
    cache_write_atto: int = field(init=False, repr=False, compare=False)
    image_atto: int = field(init=False, repr=False, compare=False)
    request_atto: int = field(init=False, repr=False, compare=False)
    dearest_prompt_atto: int = field(init=False, repr=False, compare=False)  # of all that a prompt token can cost

    def __post_init__(self) -> None:
        prompt = _atto("prompt", self.prompt)
        scaled = {
            "prompt_atto": prompt,
            "completion_atto": _atto("completion", self.completion),
            "cache_read_atto": prompt
            if self.input_cache_read is None
            else _atto("input_cache_read", self.input_cache_read),
            "cache_write_atto": prompt
            if self.input_cache_write is None
            else _atto("input_cache_write", self.input_cache_write),
            "image_atto": _atto("image", self.image),
            "request_atto": _atto("request", self.request),
        }
        scaled["dearest_prompt_atto"] = max(prompt, scaled["cache_read_atto"], scaled["cache_write_atto"])
        for name, value in scaled.items():
            object.__setattr__(self, name, value)


def _atto(name: str, value: Decimal) -> int:
    if not value.is_finite() or value < 0 or value > MAX_PRICE_USD:
        raise ValueError(f"price {name} is {value}: give a decimal from 0 to {MAX_PRICE_USD} USD per unit")
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)  # finite, so never 'n' or 'F'
    if -exponent > MAX_PRICE_DECIMALS:
        raise ValueError(f"price {name} has {-exponent} decimal places: at most {MAX_PRICE_DECIMALS} are kept exactly")
    numerator, denominator = value.as_integer_ratio()
    return numerator * _SCALE // denominator
