"""How many tokens a request can cost at most: what its hold and its limits are reckoned with."""

from edge.openai.ask import Ask
from edge.routing.snapshot import Model


def token_bounds(model: Model, ask: Ask) -> tuple[int, int]:
    """The most prompt and completion tokens that a request can cost.

    A byte of plain text bounds a token, but for what a chat template adds; what is opaque (images, files) can be as
    large as the context. An output limit above the context cannot be used up.
    """
    context = model.context_length
    prompt = context if ask.opaque else min(context, ask.text_bytes + model.template_overhead_tokens)
    output = ask.max_output_tokens if ask.max_output_tokens is not None else model.hold_output_tokens
    return prompt, ask.n * min(output, context)
