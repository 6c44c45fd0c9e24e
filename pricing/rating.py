"""The charge for a finished request and the bound on an unfinished one."""

from pricing.price import Price
from pricing.token_usage import TokenUsage

_ATTO_PER_NANO = 10**9
_HALF_NANO_ATTO = _ATTO_PER_NANO // 2


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
    whole, rest = divmod(atto, _ATTO_PER_NANO)
    if rest > _HALF_NANO_ATTO or (rest == _HALF_NANO_ATTO and whole & 1):
        whole += 1
    return whole


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
