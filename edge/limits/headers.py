"""The `x-ratelimit-*` headers, as OpenAI's clients know them."""

import math

from edge.http.answer import Headers
from edge.limits.share import KeyShare


def rate_headers(share: KeyShare, now_s: float) -> Headers:
    """What a key has left of each of its rates."""
    headers: list[tuple[str, str]] = []
    if share.limits.requests_per_minute:
        headers += _headers("requests", share.limits.requests_per_minute, *share.requests_left(now_s))
    if share.limits.tokens_per_minute:
        headers += _headers("tokens", share.limits.tokens_per_minute, *share.tokens_left(now_s))
    return headers


def _headers(kind: str, limit: int, left: int, full_s: float) -> list[tuple[str, str]]:
    return [
        (f"x-ratelimit-limit-{kind}", str(limit)),
        (f"x-ratelimit-remaining-{kind}", str(left)),
        (f"x-ratelimit-reset-{kind}", duration(full_s)),
    ]


def duration(seconds: float) -> str:
    """A span as OpenAI writes it: `0s`, `12ms`, `1s`, `8.64s`, `6m0s`. Rounded to milliseconds, never to less."""
    total_ms = math.ceil(seconds * 1000 - 1e-6)
    if total_ms < 1000:
        return f"{total_ms}ms" if total_ms else "0s"
    minutes, rest_ms = divmod(total_ms, 60_000)
    text = f"{rest_ms / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{text}s" if minutes else f"{text}s"
