"""The bytes of the bench: 1 KB questions, a 1 KB answer, and a stream of 64 events of about 200 bytes. Pure."""

import json

MODEL = "bench/small"
MODEL_SLOW = "bench/slow"  # the same stream with a longer gap, to hold many open at once
EVENTS = 64
GAP_S = 0.005
GAP_SLOW_S = 0.25
_BYTES = 1024


def question(model: str, *, stream: bool) -> bytes:
    """A chat request of 1 KB. Who streams does not ask for usage: most do not, and it costs a gateway more."""
    body: dict[str, object] = {"model": model, "max_tokens": 64, "temperature": 0.7, "messages": []}
    if stream:
        body["stream"] = True
    frame = len(json.dumps(body | {"messages": [{"role": "user", "content": ""}]}))
    body["messages"] = [{"role": "user", "content": "x" * (_BYTES - frame)}]
    return json.dumps(body).encode()


def answer() -> bytes:
    """The answer that is not streamed: 1 KB, with usage."""
    message = {"role": "assistant", "content": ""}
    body = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(),
    }
    message["content"] = "y" * (_BYTES - len(json.dumps(body)))
    return json.dumps(body).encode()


def events() -> list[bytes]:
    """The stream: content, a finish, and usage in the last event; `[DONE]` leaves together with that one."""
    head = {
        "id": "chatcmpl-bench-0123456789",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": MODEL,
    }
    choice = {"index": 0, "delta": {"content": " token"}, "logprobs": None, "finish_reason": None}
    content = head | {"choices": [choice]}
    finish = head | {"choices": [choice | {"delta": {}, "finish_reason": "stop"}]}
    usage = head | {"choices": [], "usage": _usage()}
    bodies = [content] * (EVENTS - 2) + [finish, usage]
    lines = [b"data: %b\n\n" % json.dumps(body, separators=(",", ":")).encode() for body in bodies]
    lines[-1] += b"data: [DONE]\n\n"
    return lines


def _usage() -> dict[str, int]:
    return {"prompt_tokens": 250, "completion_tokens": EVENTS - 2, "total_tokens": 250 + EVENTS - 2}
