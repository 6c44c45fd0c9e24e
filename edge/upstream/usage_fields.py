"""Reading `usage` objects, in the shapes of both APIs and wherever an upstream may put them, into `TokenUsage`."""

from typing import Annotated, Literal

import msgspec

from pricing.token_usage import TokenUsage

# What msgspec raises on bytes that are not the JSON asked for: DecodeError and UnicodeDecodeError are ValueErrors, and
# nesting deeper than the interpreter's limit is a RecursionError.
NOT_JSON = (ValueError, RecursionError)

# A count must fit the int64 of the usage event. Negative ones are read: the plausibility gate at ingest quarantines
# them.
_Count = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    image_tokens: _Count | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: _Count | None = None


class ChatUsage(msgspec.Struct, gc=False):
    """`usage` of a chat completion. Null counts as absent; floats, strings and booleans are refused."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    total_tokens: _Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class ResponsesUsage(
    msgspec.Struct,
    gc=False,
    rename={
        "prompt_tokens": "input_tokens",
        "completion_tokens": "output_tokens",
        "prompt_tokens_details": "input_tokens_details",
        "completion_tokens_details": "output_tokens_details",
    },
):
    """`usage` of a response: the same counts under other names."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    total_tokens: _Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


def says_counts(usage: ChatUsage | ResponsesUsage) -> bool:
    """Whether `token_usage` would find its counts; cheap enough for every event of a stream."""
    return (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens).count(None) < 2


def token_usage(usage: ChatUsage | ResponsesUsage) -> TokenUsage | None:
    """What `usage` says, unaltered; None if it does not say it.

    Where one of the two main counts is missing (servers that leave out a zero) it is what `total_tokens` leaves for
    it. A missing detail is 0: it is a part of a main count, and nothing is lost but a discount.
    """
    prompt, completion, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
    if prompt is None and completion is not None and total is not None:
        prompt = total - completion
    elif completion is None and prompt is not None and total is not None:
        completion = total - prompt
    if prompt is None or completion is None:
        return None
    of_prompt = usage.prompt_tokens_details or _NO_PROMPT_DETAILS
    of_completion = usage.completion_tokens_details or _NO_COMPLETION_DETAILS
    return TokenUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=of_prompt.cached_tokens or 0,
        cache_write_tokens=of_prompt.cache_write_tokens or 0,
        reasoning_tokens=of_completion.reasoning_tokens or 0,
        audio_tokens=of_prompt.audio_tokens or 0,
        image_tokens=of_prompt.image_tokens or 0,
    )


def folded_token_usage(usages: list[ChatUsage]) -> TokenUsage | None:
    """One usage out of the usages of several choices: they share one prompt, and their completions add up.

    None if there is none, or one of them does not say its counts.
    """
    counts = []
    for usage in usages:
        count = token_usage(usage)
        if count is None:
            return None
        counts.append(count)
    if len(counts) < 2:
        return counts[0] if counts else None
    return TokenUsage(
        prompt_tokens=max(count.prompt_tokens for count in counts),
        completion_tokens=sum(count.completion_tokens for count in counts),
        cached_tokens=max(count.cached_tokens for count in counts),
        cache_write_tokens=max(count.cache_write_tokens for count in counts),
        reasoning_tokens=sum(count.reasoning_tokens for count in counts),
        audio_tokens=max(count.audio_tokens for count in counts),
        image_tokens=max(count.image_tokens for count in counts),
    )


_NO_PROMPT_DETAILS = _PromptDetails()
_NO_COMPLETION_DETAILS = _CompletionDetails()


class _Choice(msgspec.Struct, gc=False):
    usage: ChatUsage | None = None


class _ChatBody(msgspec.Struct, gc=False):
    usage: ChatUsage | None = None


class _ChatBodyChoices(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None


class _ResponsesBody(msgspec.Struct, gc=False):
    usage: ResponsesUsage | None = None


_chat_body = msgspec.json.Decoder(_ChatBody)
_chat_body_choices = msgspec.json.Decoder(_ChatBodyChoices)
_responses_body = msgspec.json.Decoder(_ResponsesBody)


def usage_from_body(body: bytes, resource: Literal["chat", "responses"]) -> TokenUsage | None:
    """What a non-streamed answer says that it used, also where it says so per choice.

    None if the body is not a JSON object, has no usage, or one with counts that are missing or not integers: such an
    answer is unmetered, and its caller raises the alarm and bills by the policy on estimates.
    """
    try:
        if resource == "responses":
            usage: ChatUsage | ResponsesUsage | None = _responses_body.decode(body).usage
        else:
            usage = _chat_body.decode(body).usage
            if usage is None:
                choices = _chat_body_choices.decode(body).choices or []
                return folded_token_usage([choice.usage for choice in choices if choice.usage is not None])
    except NOT_JSON:
        return None
    return token_usage(usage) if usage is not None else None
