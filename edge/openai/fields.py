"""Which request fields decide, which are refused and why, and which need no look: the policy as tables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

VLLM, SGLANG, LLAMACPP, OPENAI = "vllm", "sglang", "llamacpp", "openai"
# `openai` is whatever speaks OpenAI's protocol: it may be any of the others behind another gateway.
KINDS = frozenset({VLLM, SGLANG, LLAMACPP, OPENAI})

# Bytes of a grammar, regular expression or JSON schema that constrains the output. An upstream compiles it on its CPU
# before the first token; schemas of real programs stay below 30 KB.
GRAMMAR_BYTES_MAX = 65_536


class Refused(msgspec.Struct, frozen=True):
    """Why a name is refused, and where that is so.

    `harmless`: JSON values that say what the upstream does anyway; they pass, as null does for every field.
    """

    why: str
    harmless: frozenset[bytes] = frozenset()
    kinds: frozenset[str] = KINDS


_OFF = frozenset({b"false"})
_CODE = "it would run the client's own code or template in the model's server"
_PLACE = "how requests are scheduled, placed and named is the operator's business"
_COST = "what it costs is not reported as usage"
_LIMIT = "it overrides the output limit; use `max_tokens`, `max_completion_tokens` or `max_output_tokens`"
_STATE = "stored state is not kept apart by customer; send the whole conversation"
_SAMPLES = "it multiplies the answers; use `n`"

# Top-level fields, refused wherever they occur with another value than null or a harmless one. Most are refused for
# every kind, also where that kind does not know the name: a model may be served by several kinds, and a field that one
# refuses and the next ignores would be a lottery. `kinds` is narrower where a name is harmless elsewhere.
REFUSED_FIELDS: Mapping[str, Refused] = MappingProxyType(
    {
        # code and templates
        "custom_logit_processor": Refused(_CODE),  # SGLang unpickles it
        "logits_processors": Refused(_CODE),
        "chat_template": Refused(_CODE),
        "mm_processor_kwargs": Refused(_CODE),
        "media_io_kwargs": Refused(_CODE),
        "guided_decoding_backend": Refused(_CODE),  # one of vLLM's fills the disk with compiled grammars
        # scheduling, placement, identity
        "priority": Refused(_PLACE, frozenset({b"0"})),  # 0 is vLLM's and SGLang's default
        "request_id": Refused(_PLACE),
        "rid": Refused(_PLACE),
        "kv_transfer_params": Refused(_PLACE),
        "ec_transfer_params": Refused(_PLACE),
        "vllm_xargs": Refused(_PLACE),
        "extra_args": Refused(_PLACE),
        "session_params": Refused(_PLACE),
        "lora_path": Refused(_PLACE),
        "lora": Refused(_PLACE),
        "id_slot": Refused(_PLACE),  # llama.cpp: another customer's slot, with his prompt in its cache
        "slot_id": Refused(_PLACE),
        "data_parallel_rank": Refused(_PLACE),
        "routed_dp_rank": Refused(_PLACE),
        "disagg_prefill_dp_rank": Refused(_PLACE),
        "bootstrap_*": Refused(_PLACE),  # SGLang connects to the host that it is told
        "service_tier": Refused("only `auto` and `default` are served", frozenset({b'"auto"', b'"default"'})),
        # cost that the meter does not see
        "background": Refused("it is answered without usage and goes on generating", _OFF),
        "best_of": Refused(_SAMPLES, frozenset({b"1"})),
        "n_cmpl": Refused(_SAMPLES, frozenset({b"1"})),  # llama.cpp prefers it to `n`
        "use_beam_search": Refused(_COST, _OFF),
        "prompt_logprobs": Refused(_COST),  # 0 is work too
        "echo": Refused("with `top_logprobs` it computes the prompt's too", _OFF, frozenset({VLLM, OPENAI})),
        "ignore_eos": Refused("it makes the model generate past its end", _OFF),
        "n_predict": Refused(_LIMIT),  # llama.cpp prefers it to `max_tokens`
        "max_new_tokens": Refused(_LIMIT),
        "num_predict": Refused(_LIMIT),
        "return_hidden_states": Refused(_COST, _OFF),
        "return_routed_experts": Refused(_COST, _OFF),
        "input_embeds": Refused(_COST),
        "prompt_embeds": Refused(_COST),
        "web_search_options": Refused("searches are not metered"),
        # other customers' data
        "previous_response_id": Refused(_STATE),
        "previous_response": Refused(_STATE),
        "previous_input_messages": Refused(_STATE),
        "conversation": Refused(_STATE),
        "prompt": Refused(_STATE),
        # sound
        "audio": Refused("audio is not priced"),
    }
)
# Fields whose name a longer name may begin with, and the row that speaks for them.
REFUSED_PREFIXES: Mapping[str, str] = MappingProxyType({"bootstrap_": "bootstrap_*"})

# What is refused inside values; the operator allows it by the same kind of name.
REFUSED_PARTS: Mapping[str, Refused] = MappingProxyType(
    {
        "tools": Refused("only tools of type `function` and `custom` are offered; hosted tools are not metered"),
        "image_url": Refused(
            "only `data:` URLs are taken; another would be fetched from inside the operator's network"
        ),
        "file_id": Refused("files are not kept apart by customer; send the content"),
        "item_reference": Refused(_STATE),
        # A reasoning item with an id and no content; only OpenAI itself looks it up.
        "reasoning_reference": Refused(_STATE, kinds=frozenset({OPENAI})),
        "uuid": Refused("cached media are not kept apart by customer; send the content"),
        "content_type": Refused("what this type costs, or reaches, is not known here"),
        "modalities": Refused("only text is generated"),
        "grammar": Refused(f"it is larger than {GRAMMAR_BYTES_MAX} bytes"),
        "continuous_usage_stats": Refused("the service decides how usage is reported in streams", _OFF),
        "n": Refused("this endpoint generates one answer"),
    }
)
REFUSED: Mapping[str, Refused] = MappingProxyType({**REFUSED_FIELDS, **REFUSED_PARTS})

# Fields that route, meter, or are looked into. Twice, or in another case, is 400: parsers differ on which one counts.
DECIDING = frozenset(
    {
        "model",
        "stream",
        "stream_options",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "messages",
        "input",
        "instructions",
        "prediction",
        "tools",
        "tool_choice",
        "modalities",
        "store",
        "chat_template_kwargs",
    }
)
OUTPUT_LIMITS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
# Refused by default; where the operator allows one, the hold still has to know it.
OTHER_OUTPUT_LIMITS = frozenset({"n_predict", "max_new_tokens", "num_predict"})
OTHER_ANSWER_COUNTS = frozenset({"best_of", "n_cmpl"})

# Fields that hold conversation: searched for media, files and references.
CONVERSATION = frozenset({"messages", "input", "instructions", "prediction"})
# Fields that hold a grammar or schema for the output: their size is bounded.
GRAMMARS = frozenset(
    {
        "response_format",
        "text",
        "structured_outputs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "grammar",
        "json_schema",
        "regex",
        "ebnf",
        "structural_tag",
    }
)

# Well-known fields with nothing to decide about beyond their nesting: they keep a request on the fast path. A name that
# is missing here costs some microseconds and nothing else.
PLAIN = frozenset(
    {
        "top_k",
        "min_p",
        "repetition_penalty",
        "length_penalty",
        "stop",
        "stop_token_ids",
        "min_tokens",
        "seed",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "metadata",
        "store",
        "safety_identifier",
        "prompt_cache_key",
        "verbosity",
        "reasoning",
        "reasoning_effort",
        "thinking",
        "include_reasoning",
        "skip_special_tokens",
        "include",
        "truncation",
        "max_tool_calls",
        "response_format",
        "text",
    }
)
