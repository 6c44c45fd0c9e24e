"""Which price vectors were seen under which version: a version that changes its price is not believed."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pricing import Price
from usage_svc.events import PriceTerms
from usage_svc.rating import price_from_terms

MAX_PRICES_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Judged vectors: a price for each that holds, a reason for each that does not, and those to be remembered."""

    prices: Mapping[PriceTerms, Price]
    reasons: Mapping[PriceTerms, str]
    first_seen: tuple[PriceTerms, ...]


def judge(wanted: Iterable[PriceTerms], known: Mapping[str, PriceTerms]) -> Verdicts:
    """Compares vectors with those stored under their versions. Of two new ones of one version the first holds.

    Compared as numbers: "0.10" is "0.1", since a database or a catalog may write either.
    """
    prices: dict[PriceTerms, Price] = {}
    reasons: dict[PriceTerms, str] = {}
    first_seen: list[PriceTerms] = []
    held = {version: price_from_terms(terms) for version, terms in known.items()}
    for terms in wanted:
        price = price_from_terms(terms) if terms.price_version else None
        if price is None:
            reasons[terms] = "PRICE_INVALID"
        elif terms.price_version not in held:
            held[terms.price_version] = price
            first_seen.append(terms)
            prices[terms] = price
        elif held[terms.price_version] == price:
            prices[terms] = price
        else:
            reasons[terms] = "PRICE_CONTRADICTS_VERSION"
    return Verdicts(prices, reasons, tuple(first_seen))


class PriceBook:
    """Vectors known to agree with the database, so that a batch at known prices asks it nothing.

    Add only after the transaction that stored them has committed.
    """

    def __init__(self) -> None:
        self._prices: OrderedDict[PriceTerms, Price] = OrderedDict()

    def known(self, wanted: Iterable[PriceTerms]) -> dict[PriceTerms, Price]:
        """Those of the wanted that need no look."""
        return {terms: self._prices[terms] for terms in wanted if terms in self._prices}

    def add(self, prices: Mapping[PriceTerms, Price]) -> None:
        """Remembers; the oldest are forgotten beyond the maximum."""
        self._prices.update(prices)
        while len(self._prices) > MAX_PRICES_REMEMBERED:
            self._prices.popitem(last=False)
