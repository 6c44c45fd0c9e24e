"""Chat Completions as model servers answer them: one JSON object, or a stream of chunks. Pure."""

from collections.abc import Iterator
from typing import Any

from tests.harness.upstream_answer import Answer, Terminal, UsageAt
from tests.harness.upstream_event import Event, Json, doubled, event, said_usage
from tests.harness.upstream_question import Question, content_events, content_pieces, was_cut_short

_CREATED = 1_760_000_000  # any moment: answers must not depend on the clock
_TIMINGS = {"prompt_n": 3, "prompt_ms": 1.25, "predicted_n": 5, "predicted_ms": 9.5, "predicted_per_second": 526.3}


def chat_completion(question: Question, answer: Answer, answer_id: str) -> Event:
    """The answer that is not streamed."""
    pieces = content_pieces(question, answer)
    reasoning = "".join(pieces[: answer.reasoning_events])
    message: Json = {"role": "assistant", "content": "".join(pieces[answer.reasoning_events :]), "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    choices: list[Json] = [
        {"index": index, "message": dict(message), "logprobs": None, "finish_reason": _finish_reason(question, answer)}
        for index in range(question.choices)
    ]
    body: Json = {
        "id": answer_id,
        "object": "chat.completion",
        "created": _CREATED,
        "model": question.model,
        "choices": choices,
    }
    usage = None if answer.usage_at is UsageAt.NOWHERE else said_usage(question, answer)
    if usage is not None:
        (choices[-1] if answer.usage_at is UsageAt.CHOICE else body)["usage"] = usage
    if answer.timings:
        body["timings"] = _TIMINGS
    return event(body, answer, usage=usage)


def chat_chunks(question: Question, answer: Answer, answer_id: str) -> Iterator[Event]:
    """The stream, `[DONE]` included."""
    writer = _Chunks(question, answer, answer_id)
    if answer.azure:
        filters = [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}]
        opening = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": filters}
        yield event(opening, answer)
    for index in range(question.choices):
        yield writer.chunk(0, [_choice(index, {"role": "assistant", "content": ""})])
    pieces = content_pieces(question, answer)
    last = len(pieces) - 1
    for number, piece in enumerate(pieces):
        if answer.error_event and number == answer.ending_after:
            yield event({"error": {"message": "the engine died", "type": "InternalServerError", "code": 500}}, answer)
            yield from writer.done()
            return
        name = "reasoning_content" if number < answer.reasoning_events else "content"
        for index in range(question.choices):
            if number == last and answer.finish_on_content:
                yield writer.finish(index, {name: piece})
            else:
                yield writer.chunk(number + 1, [_choice(index, {name: piece})])
    if not answer.finish_on_content or not pieces:
        for index in range(question.choices):
            yield writer.finish(index, {})
    yield from writer.after_finish()
    yield from writer.done()
    if answer.second_terminal:
        yield writer.finish(0, {})
        yield writer.with_usage([], doubled(said_usage(question, answer)))


class _Chunks:
    """Makes the chunks of one stream, and knows where its usage belongs."""

    def __init__(self, question: Question, answer: Answer, answer_id: str) -> None:
        self._question = question
        self._answer = answer
        self._head: Json = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": _CREATED,
            "model": question.model,
        }
        asked = answer.usage_at is UsageAt.ASKED and question.include_usage
        self._extra_chunk = asked or answer.usage_at in (UsageAt.LAST_CHUNK, UsageAt.NULL_EVERYWHERE)
        self._cumulative = answer.usage_at is UsageAt.CUMULATIVE or (asked and question.continuous_usage)
        self._on_finish = answer.usage_at in (UsageAt.LAST_CONTENT, UsageAt.THEN_NULL)

    def chunk(self, events_sent: int, choices: list[Json]) -> Event:
        """One chunk, after so many content events."""
        if self._cumulative:
            return self.with_usage(choices, said_usage(self._question, self._answer, events_sent))
        if self._answer.usage_at is UsageAt.NULL_EVERYWHERE:
            return event({**self._head, "choices": choices, "usage": None}, self._answer)
        return event({**self._head, "choices": choices}, self._answer)

    def with_usage(self, choices: list[Json], usage: Any) -> Event:
        return event({**self._head, "choices": choices, "usage": usage}, self._answer, usage=usage)

    def finish(self, index: int, delta: Json) -> Event:
        """The chunk that finishes choice `index`; with usage, where the script puts it there."""
        choice = _choice(index, delta, _finish_reason(self._question, self._answer))
        total = said_usage(self._question, self._answer)
        if index < self._question.choices - 1:
            return self.chunk(content_events(self._question, self._answer), [choice])
        if self._answer.usage_at is UsageAt.CHOICE:
            return event({**self._head, "choices": [{**choice, "usage": total}]}, self._answer, usage=total)
        if self._on_finish:
            return self.with_usage([choice], total)
        if self._answer.timings and not self._extra_chunk:
            return event({**self._head, "choices": [choice], "timings": _TIMINGS}, self._answer)
        return self.chunk(content_events(self._question, self._answer), [choice])

    def after_finish(self) -> Iterator[Event]:
        """What follows when every choice has finished."""
        if self._extra_chunk:
            usage = said_usage(self._question, self._answer)
            body: Json = {**self._head, "choices": [], "usage": usage}
            if self._answer.timings:
                body["timings"] = _TIMINGS
            yield event(body, self._answer, usage=usage)
        elif self._answer.usage_at is UsageAt.THEN_NULL:
            yield event({**self._head, "choices": [], "usage": None}, self._answer)

    def done(self) -> Iterator[Event]:
        if self._answer.done:
            yield Event("[DONE]")


def _choice(index: int, delta: Json, finish_reason: str | None = None) -> Json:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _finish_reason(question: Question, answer: Answer) -> str:
    return "length" if answer.terminal is Terminal.INCOMPLETE or was_cut_short(question, answer) else "stop"
