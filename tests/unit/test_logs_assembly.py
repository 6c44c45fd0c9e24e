"""A streamed answer becomes the one answer that it stands for, wherever it was cut; within its bound."""

import json
from typing import Any

import pytest

from edge.logs.assembly import ChatAssembly
from edge.logs.responses_assembly import ResponsesAssembly

Json = dict[str, Any]


def sse(*events: Json | str) -> bytes:
    return b"".join(
        b"data: " + (event if isinstance(event, str) else json.dumps(event)).encode() + b"\n\n" for event in events
    )


def chunk(delta: Json, index: int = 0, **choice: Any) -> Json:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "choices": [{"index": index, "delta": delta, "finish_reason": None, **choice}],
    }


def assembled(stream: bytes, bytes_max: int = 100_000, cut: int = 0) -> Json:
    assembly = ChatAssembly(bytes_max)
    for start in range(0, len(stream), cut or len(stream)):
        assembly.feed(stream[start : start + (cut or len(stream))])
    found = assembly.finish()
    assert found is not None
    answer: Json = json.loads(found)
    return answer


TOOLS = sse(
    chunk({"role": "assistant", "content": None}),
    chunk({"role": "assistant", "reasoning_content": "Let me "}),
    chunk({"reasoning_content": "see."}),
    chunk(
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    ),
    chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"x":'}}]}),
    chunk(
        {"tool_calls": [{"index": 1, "id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}
    ),
    chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": {"arguments": '"é🎉"}'}}]}),
    chunk({"content": "b"}, index=1, logprobs={"content": [{"token": "b", "logprob": -1.5}]}),
    chunk({"content": "!"}, index=1, logprobs={"content": [{"token": "!", "logprob": 0.0}]}),
    chunk({}, index=1, finish_reason="stop"),
    chunk({}, finish_reason="tool_calls"),
    {"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    "[DONE]",
)
WHOLE = {
    "id": "chatcmpl-1",
    "created": 7,
    "model": "m",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Let me see.",
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"x":"é🎉"}'},
                    },
                    {"index": 1, "id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
            "finish_reason": "tool_calls",
        },
        {
            "index": 1,
            "message": {"content": "b!"},
            "logprobs": {"content": [{"token": "b", "logprob": -1.5}, {"token": "!", "logprob": 0.0}]},
            "finish_reason": "stop",
        },
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
}


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 7, 64, 1000])
def test_texts_reasoning_tools_and_choices_are_put_together_wherever_the_stream_was_cut(cut: int) -> None:
    assert assembled(TOOLS, cut=cut) == WHOLE


def test_a_cut_at_every_byte_changes_nothing() -> None:
    for position in range(len(TOOLS)):
        assembly = ChatAssembly(100_000)
        assembly.feed(TOOLS[:position])
        assembly.feed(TOOLS[position:])
        assert json.loads(assembly.finish() or b"") == WHOLE
        assert not assembly.truncated


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
def test_line_ends_comments_and_a_mark_change_nothing(line_end: bytes) -> None:
    stream = b"\xef\xbb\xbf: hello\n\n" + TOOLS.replace(b"\n\n", b"\n: ping\n\n")
    assert assembled(stream.replace(b"\n", line_end), cut=5) == WHOLE


def test_a_stream_that_broke_off_says_what_came_and_why() -> None:
    error = {"error": {"message": "gone", "type": "api_error", "param": None, "code": "upstream_error"}}
    answer = assembled(sse(chunk({"content": "half"}), error))
    assert answer["choices"][0]["message"] == {"content": "half"}
    assert answer["choices"][0]["finish_reason"] is None
    assert answer["error"]["code"] == "upstream_error"
    assert assembled(sse(error)) == {"object": "chat.completion", **error}


def test_no_event_is_no_answer() -> None:
    for stream in (b"", b": comment\n\n", b"data: [DONE]\n\n", b"data: [1]\n\n"):
        assembly = ChatAssembly(1000)
        assembly.feed(stream)
        assert assembly.finish() is None


@pytest.mark.parametrize(
    "junk", ["{", '{"choices": 7}', '{"choices": [7, {"index": "x"}, {"delta": 3}]}', "[" * 100_000]
)
def test_whatever_else_comes_harms_nothing(junk: str) -> None:
    answer = assembled(sse(chunk({"content": "a"}), junk, chunk({"content": "b"})))
    assert answer["choices"][0]["message"]["content"] == "ab"


def test_what_is_beyond_the_bound_is_left_out_and_marked() -> None:
    assembly = ChatAssembly(2000)
    for _ in range(1000):
        assembly.feed(sse(chunk({"content": "0123456789"})))
    found = assembly.finish() or b""
    assert assembly.truncated
    assert 1500 < len(found) < 2600
    text = json.loads(found)["choices"][0]["message"]["content"]
    assert text == "0123456789" * (len(text) // 10)


def test_many_choices_and_huge_events_stay_within_the_bound() -> None:
    assembly = ChatAssembly(5000)
    for index in range(5000):
        assembly.feed(sse(chunk({"content": ""}, index=index)))
    assembly.feed(sse(chunk({"content": "x" * 100_000})))
    assert assembly.truncated
    assert len(assembly.finish() or b"") < 15_000


def test_a_stream_without_an_end_of_events_is_given_up_within_bounds() -> None:
    assembly = ChatAssembly(1000)
    for _ in range(20):
        assembly.feed(b"data: " + b"x" * 1024 * 1024)
    assert assembly.truncated
    assert assembly.finish() is None


def responses_stream(*events: Json) -> bytes:
    return b"".join(b"event: " + event["type"].encode() + b"\n" + sse(event) for event in events)


MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
PIECES = (
    {
        "type": "response.created",
        "response": {"id": "resp_1", "object": "response", "status": "in_progress", "output": []},
    },
    {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {"type": "reasoning", "id": "rs_1", "summary": []},
    },
    {
        "type": "response.reasoning_summary_part.added",
        "output_index": 0,
        "summary_index": 0,
        "part": {"type": "summary_text", "text": ""},
    },
    {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "think"},
    {
        "type": "response.output_item.done",
        "output_index": 0,
        "item": {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "think!"}]},
    },
    {"type": "response.output_item.added", "output_index": 1, "item": MESSAGE},
    {
        "type": "response.content_part.added",
        "output_index": 1,
        "content_index": 0,
        "part": {"type": "output_text", "text": "", "annotations": []},
    },
    {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Grü"},
    {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "ße"},
    {
        "type": "response.output_item.added",
        "output_index": 2,
        "item": {"type": "function_call", "name": "f", "arguments": ""},
    },
    {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"x"'},
    {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": ":1}"},
)
OUTPUT = [
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "think!"}]},
    {**MESSAGE, "content": [{"type": "output_text", "text": "Grüße", "annotations": []}]},
    {"type": "function_call", "name": "f", "arguments": '{"x":1}'},
]


def test_a_response_that_broke_off_is_put_together_wherever_it_was_cut() -> None:
    stream = responses_stream(
        *PIECES, {"type": "error", "sequence_number": 9, "code": "upstream_error", "message": "gone"}
    )
    for position in range(0, len(stream), 3):
        assembly = ResponsesAssembly(100_000)
        assembly.feed(stream[:position])
        assembly.feed(stream[position:])
        answer = json.loads(assembly.finish() or b"")
        assert answer == {
            "id": "resp_1",
            "object": "response",
            "status": "in_progress",
            "output": OUTPUT,
            "error": {"code": "upstream_error", "message": "gone"},
        }


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
def test_the_last_event_of_a_response_has_it_all(kind: str) -> None:
    response = {"id": "resp_1", "status": kind, "output": OUTPUT, "usage": {"input_tokens": 3}}
    assembly = ResponsesAssembly(100_000)
    assembly.feed(responses_stream(*PIECES, {"type": f"response.{kind}", "response": response}))
    assert json.loads(assembly.finish() or b"") == response
    assert not assembly.truncated


def test_a_response_too_large_for_its_bound_is_put_together_from_what_fits() -> None:
    response = {"id": "resp_1", "status": "completed", "output": [], "instructions": "x" * 10_000}
    assembly = ResponsesAssembly(3000)
    assembly.feed(responses_stream(*PIECES, {"type": "response.completed", "response": response}))
    assert assembly.truncated
    assert json.loads(assembly.finish() or b"")["output"] == OUTPUT
    for _ in range(1000):
        assembly.feed(responses_stream(PIECES[-1], PIECES[7]))
    assert len(assembly.finish() or b"") < 5000
