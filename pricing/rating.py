"""The charge for a finished request and the bound on an unfinished one."""

from collections.abc import Sequence
from math import gcd

from pricing.price import Price
from pricing.token_usage import TokenUsage

_ATTO_PER_NANO = 10**9


def charge_nanousd(usage: TokenUsage, price: Price) -> int:
    """What one request costs its account.

    Exact integer arithmetic, rounded half-even to a whole nano-USD once, here (docs/billing.md, "Money").
    Cached prompt tokens are clamped to the prompt, cache writes to what is left of it.

    Raises:
        ValueError: a negative count; a bug in the caller, since ingest refuses such an event.
    """
    prompt, completion, cached, cache_write, _, _, _, images = usage
    if prompt < 0 or completion < 0 or cached < 0 or cache_write < 0 or images < 0:
        raise ValueError(f"a token count is negative: {usage}")
    if cached or cache_write:
        cached = min(cached, prompt)
        cache_write = min(cache_write, prompt - cached)
    atto = (
        (prompt - cached - cache_write) * price.prompt_atto
        + cached * price.cache_read_atto
        + cache_write * price.cache_write_atto
        + completion * price.completion_atto
        + images * price.image_atto
        + price.request_atto
    )
    return _rounded(atto, _ATTO_PER_NANO)


def charges_nanousd(usages: Sequence[Sequence[int]], price: Price) -> list[int]:
    """What each of many requests of one price costs: `charge_nanousd` of each, at a third of its time.

    `usages` are TokenUsage's fields, each as a column of all requests.

    Raises:
        ValueError: a negative count, or the columns are not of one length.
    """
    charged = (*usages[:4], usages[7])
    if usages[0] and min(map(min, charged)) < 0:
        raise ValueError("a token count is negative")
    rates = (
        price.prompt_atto,
        price.completion_atto,
        price.cache_read_atto,
        price.cache_write_atto,
        price.image_atto,
        price.request_atto,
    )
    # In the largest unit of which all rates are whole numbers: most prices are whole nano-USD, and nothing is left to
    # round. Small numbers are fast.
    unit = gcd(_ATTO_PER_NANO, *rates)
    per_prompt, per_completion, per_cache_read, per_cache_write, per_image, per_request = (
        rate // unit for rate in rates
    )
    units_per_nano = _ATTO_PER_NANO // unit
    costs = []
    for prompt, completion, cached, cache_write, _, _, _, images in zip(*usages, strict=True):
        cost = prompt * per_prompt + completion * per_completion + per_request
        if cached or cache_write:
            read = min(cached, prompt)
            written = min(cache_write, prompt - read)
            cost += read * (per_cache_read - per_prompt) + written * (per_cache_write - per_prompt)
        if images:
            cost += images * per_image
        costs.append(cost)
    if units_per_nano == 1:
        return costs
    return [_rounded(cost, units_per_nano) for cost in costs]


def _rounded(cost: int, units_per_nano: int) -> int:
    """Half-even to a whole nano-USD, once for a request."""
    whole, rest = divmod(cost, units_per_nano)
    return whole + (2 * rest > units_per_nano or (2 * rest == units_per_nano and whole & 1))


def is_plausible(usage: TokenUsage, tokens_max: int) -> bool:
    """Whether what an upstream reported is charged: no count is negative or above what the model could have had.

    If not, usage_svc sets the event aside, and the edge lets nothing leave the lease. `images` are not the upstream's.
    """
    prompt, completion, cached, cache_write, reasoning, audio, image, _ = usage
    return (
        0 <= prompt <= tokens_max
        and 0 <= completion <= tokens_max
        and 0 <= cached <= tokens_max
        and 0 <= cache_write <= tokens_max
        and 0 <= reasoning <= tokens_max
        and 0 <= audio <= tokens_max
        and 0 <= image <= tokens_max
    )


def hold_nanousd(prompt_tokens_max: int, completion_tokens_max: int, price: Price, images: int = 0) -> int:
    """The most that a request within these bounds can cost, rounded up to a whole nano-USD.

    Every prompt token is taken at the dearest prompt rate, since a cache write may cost more than a plain token.

    Raises:
        ValueError: a negative bound; a bug in the caller.
    """
    if prompt_tokens_max < 0 or completion_tokens_max < 0 or images < 0:
        raise ValueError(f"a bound is negative: {prompt_tokens_max}, {completion_tokens_max}, {images}")
    atto = (
        prompt_tokens_max * price.dearest_prompt_atto
        + completion_tokens_max * price.completion_atto
        + images * price.image_atto
        + price.request_atto
    )
    return -(-atto // _ATTO_PER_NANO)
