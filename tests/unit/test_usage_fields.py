"""Usage of answers that were not streamed."""

import json
from typing import Any

import pytest

from edge.upstream.usage_tap import usage_from_body
from pricing.token_usage import TokenUsage
from tests.harness.chat_events import USAGE


@pytest.mark.parametrize(
    ("body", "resource", "usage"),
    [
        ({"usage": USAGE}, "chat", TokenUsage(11, 7, 3)),
        ({"choices": [{"usage": USAGE}], "usage": None}, "chat", TokenUsage(11, 7, 3)),
        ({"choices": [{"usage": USAGE}, {"usage": USAGE}]}, "chat", TokenUsage(11, 14, 3)),
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, "chat", TokenUsage(0, 0)),
        ({"usage": {"completion_tokens": 2, "total_tokens": 5}}, "chat", TokenUsage(3, 2)),
        ({"usage": {"prompt_tokens": 5}}, "chat", None),
        ({"choices": []}, "chat", None),
        ([USAGE], "chat", None),
        ({"usage": USAGE}, "responses", None),
        (
            {
                "usage": {
                    "input_tokens": 5,
                    "output_tokens": 6,
                    "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2},
                    "output_tokens_details": {"reasoning_tokens": 4},
                }
            },
            "responses",
            TokenUsage(5, 6, 1, 2, 4),
        ),
        (
            {
                "usage": {
                    **USAGE,
                    "prompt_tokens_details": {
                        "cached_tokens": 1,
                        "cache_write_tokens": 2,
                        "audio_tokens": 3,
                        "image_tokens": 4,
                    },
                    "completion_tokens_details": {"reasoning_tokens": 5},
                }
            },
            "chat",
            TokenUsage(11, 7, 1, 2, 5, 3, 4),
        ),
    ],
)
def test_usage_of_an_answer_that_was_not_streamed(body: object, resource: Any, usage: TokenUsage | None) -> None:
    assert usage_from_body(json.dumps(body).encode(), resource) == usage


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 99999, b'{"usage":{}}', b"null", b"<html>"])
def test_a_body_that_cannot_be_read_has_no_usage(body: bytes) -> None:
    assert usage_from_body(body, "chat") is None
    assert usage_from_body(body, "responses") is None
