"""What one request consumed, as its upstream reported it."""

from typing import NamedTuple


class TokenUsage(NamedTuple):
    """Token counts of one request, both APIs' names folded into one (docs/http-api.md, "Usage is always there").

    `cached_tokens` and `cache_write_tokens` are parts of `prompt_tokens`; `reasoning_tokens` is a part of
    `completion_tokens`; `audio_tokens` and `image_tokens` are parts of the prompt, kept for the record. `images` counts
    image inputs of the request. Counts are what the upstream said, unaltered; plausibility is judged at ingest.

    A tuple, since one is made for every answer and a frozen dataclass costs five times as much to make.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    images: int = 0
