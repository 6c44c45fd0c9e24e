"""USD as people write it, nano-USD as programs keep it. Exact: no float ever."""

import re

NANOUSD_PER_USD = 10**9
_MAX_DECIMALS = 9
_MAX_USD = 10**9  # 10^18 nano-USD, the most that one credit may be
_AMOUNT = re.compile(r"(?P<sign>-?)(?P<whole>[0-9]+)(?:\.(?P<decimals>[0-9]+))?")


def nanousd_from_usd(text: str) -> int:
    """The nano-USD of an amount such as `5`, `5.00` or `-0.25`.

    Raises:
        ValueError: not a plain decimal, more than nine decimals, or more than a billion; says what to write instead.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount in USD: write a plain decimal such as 5.00")
    decimals = match["decimals"] or ""
    if len(decimals) > _MAX_DECIMALS:
        raise ValueError(
            f"{text} has {len(decimals)} decimals: a nano-USD, {_MAX_DECIMALS} decimals, is the smallest amount"
        )
    if len(match["whole"]) > 20 or int(match["whole"]) > _MAX_USD:
        raise ValueError(f"{text} USD is too much: at most {_MAX_USD} in one go")
    nanousd = int(match["whole"]) * NANOUSD_PER_USD + int(decimals.ljust(_MAX_DECIMALS, "0"))
    return -nanousd if match["sign"] else nanousd


def usd_from_nanousd(nanousd: int) -> str:
    """A plain decimal with at least two and at most nine decimals: `5.00`, `-0.000012345`."""
    whole, rest = divmod(abs(nanousd), NANOUSD_PER_USD)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nanousd < 0 else ''}{whole}.{decimals}"
