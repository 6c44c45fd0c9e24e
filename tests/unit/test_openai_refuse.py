"""Attacks on the meter, on other customers and on the operator's network, each of which must be refused by name.

And the other side: what merely looks like one passes, on the same bytes.
"""

import json
from typing import Any

import pytest

from edge.openai.ask import Ask
from edge.openai.chat import read_chat
from edge.openai.errors import RequestError
from edge.openai.fields import GRAMMAR_BYTES_MAX, KINDS, PLAIN, REFUSED, REFUSED_FIELDS
from edge.openai.refuse import Refusals
from edge.openai.responses import read_responses

IMAGE = "data:image/png;base64,AAAA"
INSIDE = "http://169.254.169.254/latest/meta-data"


def chat(content: Any = "hi", **fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **fields}).encode()


def chat_raw(fields: str) -> bytes:
    return b'{"model":"m","messages":[],' + fields.encode() + b"}"


def responses(asked: Any = "hi", **fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": asked, **fields}).encode()


def read(body: bytes) -> Ask:
    return read_responses(body) if b'"input"' in body else read_chat(body)


def refused(body: bytes, kind: str = "vllm", **policy: Any) -> str | None:
    """The field that is refused; None if the body passes."""
    ask = read(body)
    try:
        Refusals(kind, **policy).refuse(ask)
    except RequestError as error:
        if error.status != 400 or error.code != "unsupported_parameter":
            raise
        return error.param
    return None


# ---- top-level fields ----


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", sorted(REFUSED_FIELDS))
def test_every_refused_field_is_refused_by_its_name_unless_allowed(name: str, kind: str) -> None:
    field = name.replace("*", "host")
    for body in (chat(**{field: "x"}), responses(**{field: {"a": 1}})):
        expected = field if kind in REFUSED[name].kinds else None
        assert refused(body, kind) == expected
        assert refused(body, kind, allow=frozenset({name})) is None


@pytest.mark.parametrize("name", sorted(REFUSED_FIELDS))
def test_a_refused_field_is_found_in_any_spelling(name: str) -> None:
    field = name.replace("*", "room")
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in field)
    for spelling in (escaped, field.upper(), field.capitalize(), field[:-1] + f"\\u{ord(field[-1]):04X}"):
        assert refused(chat_raw(f'"{spelling}":"x"'), "openai") == json.loads(f'"{spelling}"')
        assert refused(chat_raw(f' "{spelling}" : "x" '), "openai") == json.loads(f'"{spelling}"')


@pytest.mark.parametrize("name", sorted(REFUSED_FIELDS))
def test_a_refused_field_that_says_nothing_passes(name: str) -> None:
    field = name.replace("*", "host")
    assert refused(chat(**{field: None})) is None
    for value in REFUSED[name].harmless:
        body = chat_raw(f'"{field}":{value.decode()}')
        assert refused(body) is None
        assert read(body).upstream_body(None, True) is body


@pytest.mark.parametrize(
    "field",
    [
        '"background":true',
        '"background":1',
        '"background":"false"',
        '"background":0',
        '"best_of":2',
        '"best_of":1.0',
        '"best_of":true',
        '"priority":-1',
        '"priority":"0"',
        '"prompt_logprobs":0',
        '"ignore_eos":1',
        '"use_beam_search":true',
        '"service_tier":"priority"',
        '"service_tier":"flex"',
        '"service_tier":"\\u0061uto "',
        '"n_predict":-1',
        '"n_predict":1',
        '"max_new_tokens":100000',
        '"n_cmpl":8',
        '"echo":true,"top_logprobs":20',
        '"prompt":{"id":"pmpt_1"}',
        '"conversation":"conv_1"',
        '"conversation":{"id":"conv_1"}',
        '"bootstrap_host":"10.0.0.1"',
        '"bootstrap_pair_key":"k"',
    ],
)
def test_only_the_harmless_value_of_a_refused_field_passes(field: str) -> None:
    assert refused(chat_raw(field)) == field.split('"')[1]


def test_a_plain_name_is_never_a_refused_one() -> None:
    assert not PLAIN & REFUSED_FIELDS.keys()


# ---- the meter ----


def test_n_is_limited_by_the_deployment() -> None:
    assert refused(chat(n=1)) is None
    assert refused(chat(n=2)) == "n"
    assert refused(chat(n=4), n_max=4) is None
    assert refused(chat(n=5, unheard_of=1), n_max=4) == "n"


def test_responses_generate_one_answer() -> None:
    for n in (1, 2):
        assert refused(responses(n=n), n_max=4) == "n"
    assert refused(responses(n=None)) is None


def test_what_the_operator_allows_is_still_held_for() -> None:
    assert read(chat(best_of=8)).n == 8
    assert read(chat(n_cmpl=8, n=2)).n == 8
    assert read(chat(max_tokens=5, n_predict=500)).max_output_tokens == 500
    assert read(chat(max_tokens=5, n_predict=-1)).max_output_tokens is None
    assert read(chat(max_tokens=5, max_new_tokens="many")).max_output_tokens is None
    assert refused(chat(best_of=8), allow=frozenset({"best_of"})) == "n"
    assert read(responses(previous_response_id="resp_1")).opaque


def test_usage_in_every_chunk_is_the_services_own_decision() -> None:
    for options in ('{"continuous_usage_stats":true}', '{"include_usage":true,"continuous_usage_\\u0073tats":true}'):
        assert refused(chat_raw(f'"stream":true,"stream_options":{options}')) == "stream_options.continuous_usage_stats"
    assert refused(chat_raw('"stream":true,"stream_options":{"continuous_usage_stats":false}')) is None


@pytest.mark.parametrize("name", ["response_format", "structured_outputs", "guided_json", "grammar", "regex", "text"])
def test_a_grammar_over_a_size_is_refused(name: str) -> None:
    large = "x" * GRAMMAR_BYTES_MAX
    assert refused(chat(**{name: {"type": "json_schema", "schema": large}})) == name
    assert refused(chat(**{name: {"type": "json_schema", "schema": "x"}})) is None


def test_a_custom_tools_grammar_over_a_size_is_refused() -> None:
    definition = "x" * (GRAMMAR_BYTES_MAX + 1)
    in_chat = {
        "type": "custom",
        "custom": {"name": "t", "format": {"type": "grammar", "grammar": {"definition": definition}}},
    }
    in_responses = {"type": "custom", "name": "t", "format": {"type": "grammar", "definition": definition}}
    assert refused(chat(tools=[in_chat])) == "tools[0].custom.format.grammar.definition"
    assert refused(responses(tools=[in_responses])) == "tools[0].format.definition"


# ---- templates ----


def test_the_renderer_is_not_reached_through_template_arguments() -> None:
    assert (
        refused(chat_raw('"chat_template_kwargs":{"chat_template":"{{ x }}"}')) == "chat_template_kwargs.chat_template"
    )
    assert (
        refused(chat_raw('"chat_template_kwargs":{"chat\\u005ftemplate":"x"}')) == "chat_template_kwargs.chat_template"
    )
    assert refused(chat_raw('"chat_template_kwargs":{"tokenize":true}')) == "chat_template_kwargs.tokenize"
    assert refused(chat(chat_template_kwargs={"enable_thinking": False, "note": "chat_template"})) is None


# ---- tools ----


@pytest.mark.parametrize(
    "tool",
    [
        '{"type":"web_search"}',
        '{"type":"web_search_preview"}',
        '{"type":"file_search","vector_store_ids":["vs_1"]}',
        '{"type":"code_interpreter","container":{"type":"auto"}}',
        '{"type":"mcp","server_url":"http://10.0.0.1"}',
        '{"type":"image_generation"}',
        '{"type":"computer_use_preview"}',
        '{"type":"local_shell"}',
        '{"type":"web\\u005fsearch"}',
        '{"t\\u0079pe":"mcp"}',
        '{"type":"mcp","type":"function"}',
        '{"type":"function","type":"mcp"}',
        '{"type":"function","Type":"mcp"}',
        '{"type":["mcp"]}',
        '{"type":null}',
        '{"google_search":{}}',
        '{"type":"web_search","function":{"name":"f"}}',
        '{"type":"web_search","name":"f"}',
        '{"type":"mcp","function":{"name":"f"},"type":"function"}',
        '{"type":"mcp","name":"f","type":"function"}',
        '{"function":{"name":"f"}}',
    ],
)
def test_hosted_tools_are_refused(tool: str) -> None:
    function = '{"type":"function","function":{"name":"f"}}'
    assert refused(chat_raw(f'"tools":[{function},{tool}]')) == "tools[1].type"
    body = f'{{"model":"m","input":"hi","tools":[{tool}]}}'.encode()
    assert refused(body) == "tools[0].type"
    assert refused(body, allow=frozenset({"tools"})) is None


@pytest.mark.parametrize(
    "choice", ['{"type":"web_search_preview"}', '{"type":"mcp","server_label":"x"}', '{"type":[]}']
)
def test_a_hosted_tool_is_not_chosen_either(choice: str) -> None:
    assert refused(chat_raw(f'"tool_choice":{choice}')) == "tool_choice.type"
    listed = f'{{"type":"allowed_tools","mode":"auto","tools":[{choice}]}}'
    assert refused(chat_raw(f'"tool_choice":{listed}')) == "tool_choice.tools[0].type"


@pytest.mark.parametrize(
    "choice", ["auto", "none", {"type": "function", "function": {"name": "f"}}, {"type": "custom"}]
)
def test_functions_and_custom_tools_pass(choice: Any) -> None:
    parameters = {"type": "object", "properties": {"image_url": {"type": "string", "default": INSIDE}, "file_id": {}}}
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": parameters}},
        {"type": "custom", "custom": {}},
    ]
    assert refused(chat(tools=tools, tool_choice=choice)) is None
    assert refused(responses(tools=[{"type": "function", "name": "f", "parameters": parameters}])) is None


def test_tools_are_an_array() -> None:
    with pytest.raises(RequestError, match="array"):
        read(chat(tools={"type": "mcp"}))


# ---- the operator's network ----

PART = "messages[0].content[0]"


@pytest.mark.parametrize(
    "url",
    [
        INSIDE,
        "https://example.com/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "ftp://x",
        "HTTP://X",
        " " + INSIDE,
        "\t" + IMAGE,
        "Data:image/png;base64,AAAA",
        "AAAA",
        "",
    ],
)
def test_only_data_urls_are_taken_for_images(url: str) -> None:
    forms: list[tuple[Any, str]] = [
        ({"type": "image_url", "image_url": {"url": url}}, ".image_url.url"),
        ({"type": "image_url", "image_url": url}, ".image_url"),
        ({"type": "input_image", "image_url": url}, ".image_url"),
        ({"type": "video_url", "video_url": {"url": url}}, ".video_url.url"),
        ({"type": "text", "text": "hi", "image_url": {"url": url}}, ".image_url.url"),
        ({"image_url": url}, ".image_url"),
        ({"type": "image_url", "url": url}, ".url"),
        ({"type": "image_url", "image_url": {"url": [IMAGE, url]}}, ".image_url.url[1]"),
    ]
    for part, place in forms:
        assert refused(chat([part])) == PART + place
        ask = read(chat([part]))
        assert ask.opaque
    assert refused(chat([forms[0][0]]), allow=frozenset({"image_url"})) is None


@pytest.mark.parametrize(
    "part",
    [
        '{"type":"image_url","image\\u005furl":{"url":"http://x"}}',
        '{"type":"image_url","image_url":{"\\u0075rl":"http://x"}}',
        '{"type":"image_url","image_url":{"url":"\\u0068ttp://x"}}',
        '{"\\u0074ype":"image_url","image_url":{"url":"http:\\/\\/x"}}',
        '{"type":"image_url","image_url":{"url":"data:,","url":"http://x"}}',
        '{"type":"image_url","image_url":{"url":"http://x","url":"data:,"}}',
        '{"type":"image_url","image_url":{"url":"http://x"},"image_url":{"url":"data:,"}}',
        '{"type":"text","text":"a","type":"image_url","image_url":"http://x"}',
        '{"type":"image_url","Image_URL":{"URL":"http://x"}}',
        '{"type":"image_url","image_url":{"url":"data:,","uri":"http://x"}}',
        '{"type":"image_url","image_url":{"url":"data:,","path":"/etc/passwd"}}',
    ],
)
def test_no_spelling_hides_an_address(part: str) -> None:
    body = f'{{"model":"m","messages":[{{"role":"user","content":[{part}]}}]}}'.encode()
    param = refused(body)
    assert param is not None
    assert param.startswith(PART)


@pytest.mark.parametrize(
    "messages",
    [
        '[{"role":"user","content":[{"type":"image_url","image_url":"http://x"}],"content":"hi"}]',
        '[{"role":"user","content":"hi","content":[{"type":"image_url","image_url":"http://x"}]}]',
        '[{"role":"user","content":{"type":"image_url","image_url":"http://x"}}]',
        '[{"role":"tool","content":[[{"type":"image_url","image_url":"http://x"}]]}]',
        '[{"role":"user","content":"hi","image_url":"http://x"}]',
        '[{"role":"user","content":"hi","images":["http://x"]}]',
        '[{"role":"user","content":"hi","extra":{"image_url":{"url":"http://x"}}}]',
        '{"role":"user","content":[{"type":"image_url","image_url":"http://x"}]}',
        '[{"role":"user","content":{"type":"image","source":{"type":"url","url":"http://x"}}}]',
        '[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"http://x"}}]}]',
        '[{"role":"user","content":[{"type":"image_embeds","image_embeds":"AAAA"}]}]',
        '[{"role":"user","content":[{"prompt_embeds":"AAAA"}]}]',
        '[{"role":"user","content":[{"type":["image_url"]}]}]',
    ],
)
def test_no_place_in_a_conversation_hides_a_medium(messages: str) -> None:
    param = refused(f'{{"model":"m","messages":{messages}}}'.encode())
    assert param is not None
    assert param.startswith("messages")


@pytest.mark.parametrize(
    "item",
    [
        '{"role":"user","content":"hi","image_url":"http://x"}',
        '{"role":"user","content":[{"type":"input_text","text":"hi","image_url":"http://x"}]}',
        '{"role":"user","content":[{"type":"input_image","image_url":"http://x"}],"content":"hi"}',
        '{"type":"function_call_output","output":{"type":"input_image","image_url":"http://x"}}',
        '{"type":"message","content":[[{"type":"input_image","image_url":"http://x"}]]}',
    ],
)
def test_no_place_in_an_input_hides_a_medium(item: str) -> None:
    param = refused(f'{{"model":"m","input":[{item}]}}'.encode())
    assert param is not None
    assert param.startswith("input[0]")


def test_a_prediction_is_searched_like_a_message() -> None:
    prediction = {"type": "content", "content": [{"type": "image_url", "image_url": INSIDE}]}
    assert refused(chat(prediction=prediction)) == "prediction.content[0].image_url"
    assert refused(chat(prediction={"type": "content", "content": "text"})) is None


def test_images_that_come_along_are_counted_and_held_for() -> None:
    ask = read(chat([{"type": "text", "text": "a"}, *[{"type": "image_url", "image_url": {"url": IMAGE}}] * 3]))
    assert (ask.images, ask.opaque, ask.findings) == (3, True, ())
    ask = read(responses([{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE, "detail": "low"}]}]))
    assert (ask.images, ask.opaque, ask.findings) == (1, True, ())


@pytest.mark.parametrize("url", [INSIDE, "file:///etc/passwd"])
def test_files_are_not_fetched_either(url: str) -> None:
    for part in ({"type": "input_file", "file_url": url}, {"type": "input_file", "file_data": url}):
        body = responses([{"role": "user", "content": [part]}])
        assert refused(body) == f"input[0].content[0].{next(name for name in part if name != 'type')}"
    assert refused(chat([{"type": "file", "file": {"file_data": url}}])) == PART + ".file.file_data"


def test_a_tools_output_is_searched_too() -> None:
    output = [{"type": "input_image", "image_url": INSIDE}]
    body = responses([{"type": "function_call_output", "call_id": "c", "output": output}])
    assert refused(body) == "input[0].output[0].image_url"
    assert refused(chat_raw(f'"input":[],"instructions":[{{"content":{json.dumps(output)}}}]')) == (
        "instructions[0].content[0].image_url"
    )


# ---- other customers ----


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat([{"type": "file", "file": {"file_id": "file-1"}}]), PART + ".file.file_id"),
        (chat([{"type": "file", "file": "file-1"}]), PART + ".file"),
        (chat([{"type": "image_url", "image_url": {"file_id": "file-1"}}]), PART + ".image_url.file_id"),
        (chat([{"type": "image_url", "image_url": None, "uuid": "u"}]), PART + ".uuid"),
        (chat([{"type": "image_url", "image_url": {"url": IMAGE}, "uuid": "u"}]), PART + ".uuid"),
        (chat([{"image_url": None, "uuid": "u"}]), PART + ".uuid"),
        (
            responses([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]),
            "input[0].content[0].file_id",
        ),
        (
            responses([{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]),
            "input[0].content[0].file_id",
        ),
        (responses([{"type": "item_reference", "id": "msg_1"}]), "input[0].type"),
        (responses([{"id": "msg_1"}]), "input[0]"),
        (responses([{"id": "msg_1", "type": None}]), "input[0]"),
        (responses([{"type": "code_interpreter_call", "container_id": "c"}]), "input[0].type"),
        (responses([{"type": "file_search_call", "id": "fs_1"}]), "input[0].type"),
        (responses([{"type": "image_generation_call", "id": "ig_1"}]), "input[0].type"),
        (responses(previous_response_id="resp_1"), "previous_response_id"),
        (responses(previous_input_messages=[{"role": "user"}]), "previous_input_messages"),
        (responses(prompt={"id": "pmpt_1"}), "prompt"),
    ],
)
def test_what_other_customers_may_have_stored_is_out_of_reach(body: bytes, param: str) -> None:
    assert refused(body) == param


@pytest.mark.parametrize(
    "item",
    [
        '{"type":"item_reference","type":"message","id":"m1"}',
        '{"type":"message","type":"item_reference","id":"m1"}',
        '{"typ\\u0065":"item\\u005freference","id":"m1"}',
    ],
)
def test_no_spelling_hides_a_reference(item: str) -> None:
    assert refused(f'{{"model":"m","input":[{item}]}}'.encode()) is not None


def test_reasoning_without_its_text_is_a_reference_where_the_upstream_looks_it_up() -> None:
    summary = [{"type": "summary_text", "text": "t"}]
    for summarised in ([], summary):
        body = responses([{"type": "reasoning", "id": "rs_1", "summary": summarised}])
        assert refused(body, "openai") == "input[0]"
        assert refused(body, "vllm") is None
    told = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]}
    assert refused(responses([told]), "openai") is None
    assert refused(responses([{"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA"}]), "openai") is None


def test_state_that_the_client_carries_is_held_for() -> None:
    for fields in ({}, {"unheard_of": 1}):
        ask = read(responses([{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}], **fields))
        assert (ask.opaque, ask.findings) == (True, ())


def test_store_passes() -> None:
    assert refused(responses(store=True)) is None
    assert refused(chat(store=True)) is None


# ---- sound ----


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat(modalities=["text", "audio"]), "modalities"),
        (chat(audio={"voice": "alloy", "format": "wav"}), "audio"),
        (chat([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]), PART + ".type"),
        (chat([{"type": "audio_url", "audio_url": {"url": INSIDE}}]), PART + ".type"),
        (chat([{"input_audio": {"data": "AAAA"}}]), PART + ".input_audio"),
        (
            chat_raw('"unheard_of":1').replace(b"[]", b'[{"role":"assistant","audio":{"id":"audio_1"}}]'),
            "messages[0].audio",
        ),
    ],
)
def test_sound_is_refused_unless_allowed(body: bytes, param: str) -> None:
    assert refused(body) == param
    assert refused(body, allow=frozenset({"audio", "image_url", "file_id"})) is None
    assert read(body).opaque


def test_an_address_or_an_id_in_sound_is_one_still() -> None:
    body = chat([{"type": "audio_url", "audio_url": {"url": INSIDE}}])
    assert refused(body, allow=frozenset({"audio"})) == PART + ".audio_url.url"
    body = chat([{"type": "audio_url", "audio_url": INSIDE}])
    assert refused(body, allow=frozenset({"audio"})) == PART + ".audio_url"
    body = chat([], messages=[{"role": "assistant", "content": None, "audio": {"id": "audio_1"}}])
    assert refused(body, allow=frozenset({"audio"})) == "messages[0].audio.id"


def test_text_is_the_one_modality() -> None:
    assert refused(chat(modalities=["text"])) is None
    assert refused(chat(modalities=["text", "image"])) == "modalities"


# ---- and nothing else ----


@pytest.mark.parametrize("unheard_of", [{}, {"unheard_of": {"image_url": INSIDE}}], ids=["plain", "exact"])
def test_words_in_a_text_are_only_words(unheard_of: dict[str, Any]) -> None:
    text = (
        '{"type":"image_url","image_url":{"url":"http://x"},"file_id":"f","tools":[{"type":"mcp"}],"background":true}'
    )
    messages = [
        {"role": "user", "content": text},
        {"role": "user", "content": [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": "image_url",
            "annotations": [{"type": "url_citation", "url_citation": {"url": INSIDE}}],
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"image_url":"http://x"}'}},
                {"id": "d", "type": "function", "function": {"name": "f", "arguments": {"image_url": INSIDE}}},
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": INSIDE},
    ]
    fields: dict[str, Any] = {"metadata": {"image_url": INSIDE, "file_id": "f"}, "stop": ["background"], **unheard_of}
    for kind in KINDS:
        body = json.dumps({"model": "m", "messages": messages, **fields}).encode()
        assert refused(body, kind) is None
        assert not read(body).opaque
        items = [
            {"type": "message", "role": "user", "content": text},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": text},
            {"type": "function_call_output", "call_id": "c", "output": text},
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "content": [
                    {"type": "output_text", "text": text, "annotations": [{"type": "file_citation", "file_id": "f"}]}
                ],
            },
        ]
        body = responses(items, **fields)
        assert refused(body, kind) is None
        assert not read(body).opaque


def test_an_address_that_describes_no_medium_is_only_a_word() -> None:
    assert refused(chat([{"type": "text", "text": "hi", "url": INSIDE}], url=INSIDE)) is None
    assert refused(chat(documents=[{"title": "t", "text": "t", "url": INSIDE}])) is None


def test_a_refusal_names_the_field_and_the_reason() -> None:
    with pytest.raises(RequestError) as caught:
        Refusals("sglang").refuse(read(responses(background=True)))
    error = caught.value
    assert (error.status, error.code, error.param) == (400, "unsupported_parameter", "background")
    assert "`background`" in error.message
    assert REFUSED["background"].why in error.message


def test_an_operators_mistake_in_the_policy_says_what_to_write() -> None:
    with pytest.raises(ValueError, match="unknown deployment kind 'tgi'"):
        Refusals("tgi")
    with pytest.raises(ValueError, match="cannot allow backgruond"):
        Refusals("vllm", allow=frozenset({"backgruond"}))
    with pytest.raises(ValueError, match="n_max is 0"):
        Refusals("vllm", n_max=0)
