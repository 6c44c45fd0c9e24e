"""catalog_svc: what is wrong with a document, where, and what to do about it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_svc.document import MAX_DEPLOYMENTS, MAX_DOCUMENT_BYTES, parse_document
from catalog_svc.problems import DocumentInvalid

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)

GOOD = """\
models:
  - id: acme/small
    context_length: 8192
    prices:
      - per_million: {prompt: 0.10, completion: 0.40}
deployments:
  - id: gpu-1
    model: acme/small
    kind: vllm
    base_url: http://10.0.0.5:8000/v1
"""


def faults(text: str) -> list[str]:
    with pytest.raises(DocumentInvalid) as caught:
        parse_document(text, NOW)
    return [str(problem) for problem in caught.value.problems]


def deployed(line: str) -> str:
    """The good document with one more line in its deployment, which is line 11."""
    return f"{GOOD}    {line}\n"


def modelled(line: str) -> str:
    """The good document with another line of its model, which is line 4."""
    return GOOD.replace("    prices:\n", f"    {line}\n    prices:\n")


def priced(price: str) -> str:
    """The good document with another price, which is line 5."""
    return GOOD.replace("per_million: {prompt: 0.10, completion: 0.40}", price)


KEYS_OF_PER_MILLION = "the keys here are prompt, completion, input_cache_read, input_cache_write"

BAD_DOCUMENTS: dict[str, tuple[str, str]] = {
    # What cannot be read at all.
    "empty": ("", "line 1: the document is empty; start with `models:`"),
    "only a comment": ("# nothing\n", "line 1: the document is empty; start with `models:`"),
    "a list": ("- a\n", "line 1: the document is a list; start with `models:`"),
    "a word": ("models\n", "line 1: the document is a single value; start with `models:`"),
    "bad indentation": (
        "models:\n  - id: a\n    b: c: d\n",
        "line 3: not readable as YAML: mapping values are not allowed in this context; check indentation and quotes",
    ),
    "open bracket": (
        "models: [\n",
        "line 2: not readable as YAML: did not find expected node content; check indentation and quotes",
    ),
    "control character": (
        "models: []\n# \x07\n",
        "line 2: a character that YAML does not allow (control characters are not allowed); remove it",
    ),
    "anchor": (
        "models: []\ndeployments: &all []\n",
        "line 2: anchors (&) and aliases (*) are not allowed; write the value out",
    ),
    "alias": ("models: *all\n", "line 1: anchors (&) and aliases (*) are not allowed; write the value out"),
    "tag": ("models: !!set {}\n", "line 1: tags (tag:yaml.org,2002:set) are not allowed; leave it out, or quote the"),
    "merge key": ("models: []\n<<: {}\n", "line 2: merge keys (<<) are not allowed; write the keys out"),
    "two documents": (
        "models: []\n---\nmodels: []\n",
        "line 2: a second document starts here; keep everything in one, without `---` between",
    ),
    "template braces": (
        "models: {{ models }}\n",
        "line 1: a list or group stands where a key should; check for `{{`, `? ` or `[`",
    ),
    "deep": ("a: " + "[" * 50, "line 1: nested deeper than 12 levels; no part of a catalog is that deep"),
    "long key": ("x" * 300 + ": 1\n", "line 1: a key of more than 200 characters; check the quotes"),
    "duplicate key": (
        modelled("context_length: 1"),
        "line 4: context_length: given twice, first on line 3; keep one of them",
    ),
    # The shape of it.
    "no models": (
        "deployments: []\n",
        "line 1: models: is missing; list what customers can use, or write `models: []` to offer nothing",
    ),
    "models not a list": ("models: {a: 1}\n", "line 1: models: is a group of `key: value`, not a list; start each"),
    "models empty": ("models:\n", "line 1: models: is empty, not a list; start each entry with `- `"),
    "model not a group": ("models:\n  - acme\n", "line 2: models[0]: is a single value; write `key: value` lines"),
    "unknown key": (
        modelled("contxt_length: 3"),
        "line 4: models[0].contxt_length: unknown key; did you mean context_length?",
    ),
    "unknown key, other word": (
        modelled("max_tokens: 3"),
        "line 4: models[0].max_tokens: unknown key; did you mean max_output_length?",
    ),
    "unknown key, nothing near": (
        "models: []\nxyz: 1\n",
        "line 2: xyz: unknown key; the keys here are models, deployments",
    ),
    # Models.
    "no id": (
        "models:\n  - name: x\n    context_length: 1\n",
        "line 2: models[0].id: is missing; give a model id such",
    ),
    "id with a space": (GOOD.replace("id: acme/small", "id: ac me"), "line 2: models[0].id: 'ac me' is not a model id"),
    "id twice": (
        GOOD.replace(
            "deployments:", "  - {id: acme/small, context_length: 1, prices: [{per_million: {}}]}\ndeployments:"
        ),
        "line 6: models[1].id: is the id of another entry, on line 2; ids must differ",
    ),
    "empty value": (
        modelled("description:"),
        "line 4: models[0].description: is empty; give a text for people, or leave the key out",
    ),
    "list for text": (modelled("name: [a]"), "line 4: models[0].name: is a list; give a name for people, or leave the"),
    "context not a number": (
        GOOD.replace("8192", "8k"),
        "line 3: models[0].context_length: '8k' is not a whole number from 1 to 100000000",
    ),
    "context of zero": (
        GOOD.replace("8192", "0"),
        "line 3: models[0].context_length: '0' is not a whole number from 1 to 100000000",
    ),
    "absurd number": (GOOD.replace("8192", "9" * 5000), "line 3: models[0].context_length: '99999"),
    "output above context": (
        modelled("max_output_length: 8193"),
        "line 4: models[0].max_output_length: 8193 is more than the context_length of 8192; an answer has",
    ),
    "hold above output": (
        modelled("hold_output_tokens: 8193"),
        "line 4: models[0].hold_output_tokens: 8193 is more than the max_output_length of 8192; leave it out to hold",
    ),
    "quantization": (
        modelled("quantization: fp9"),
        "line 4: models[0].quantization: 'fp9' is not one of int4, int8, fp4, mxfp4, nvfp4, fp6, fp8, mxfp8, fp16, "
        "bf16, fp32; did you mean fp",
    ),
    "feature": (
        modelled("features: [tools, tols]"),
        "line 4: models[0].features[1]: 'tols' is not one of tools, json_mode, structured_outputs, logprobs, "
        "web_search, reasoning; did you mean tools?",
    ),
    "sampling parameter": (modelled("sampling_parameters: [temp]"), "line 4: models[0].sampling_parameters[0]: 'temp'"),
    "modality": (
        modelled("input_modalities: [text, text]"),
        "line 4: models[0].input_modalities[1]: 'text' is given twice; keep one of them",
    ),
    "no modality": (modelled("input_modalities: []"), "line 4: models[0].input_modalities: has 0 entries; give 1 to"),
    "words not a list": (
        modelled("features: tools"),
        "line 4: models[0].features: is a single value, not a list; write [first, second]",
    ),
    "country": (
        modelled("datacenters: [no]"),
        "line 4: models[0].datacenters[0]: 'no' is not a country code such as NO",
    ),
    "date": (
        modelled("deprecation_date: 2026-02-30"),
        "line 4: models[0].deprecation_date: '2026-02-30' is not a date such as 2026-05-31",
    ),
    "moment without a zone": (
        modelled("created: 2026-05-31T18:00:00"),
        "line 4: models[0].created: '2026-05-31T18:00:00' has no time zone; add Z for UTC, or an offset such as +02:00",
    ),
    "moment": (
        modelled("created: tomorrow"),
        "line 4: models[0].created: 'tomorrow' is not a date such as 2026-05-31,",
    ),
    # Prices.
    "no prices": (
        "models:\n  - id: a\n    context_length: 1\n",
        "line 2: models[0].prices: is missing; a model needs a price in force; write 0 out where something is free",
    ),
    "prices empty": (
        "models:\n  - id: a\n    context_length: 1\n    prices: []\n",
        "line 4: models[0].prices: is empty; a model needs a price in force; write 0 out where something is free",
    ),
    "price without completion": (
        priced("per_million: {prompt: 1}"),
        "line 5: models[0].prices[0]: has no price for completion; add per_million: {completion: ...}, 0 if it is free",
    ),
    "price without anything": (
        priced("effective: 2026-01-01"),
        "line 5: models[0].prices[0]: has no price for prompt; add per_million: {prompt: ...}, 0 if it is free",
    ),
    "price with an exponent": (
        priced("per_unit: {prompt: 1e-7, completion: 0}"),
        "line 5: models[0].prices[0].per_unit.prompt: '1e-7' is not a decimal such as 0.15; write it without an "
        "exponent: 0.0000001",
    ),
    "price NaN": (priced("per_million: {prompt: .NaN, completion: 0}"), "prompt: '.NaN' is not a decimal such as 0.15"),
    "price inf": (priced("per_million: {prompt: -.inf, completion: 0}"), "such as 0.15; give a number"),
    "price negative": (
        priced("per_million: {prompt: -1, completion: 0}"),
        "line 5: models[0].prices[0].per_million.prompt: '-1' is not a decimal such as 0.15; a price cannot be",
    ),
    "price with a comma": (priced('per_million: {prompt: "0,15", completion: 0}'), "use a point for the fraction"),
    "price with a sign": (
        priced("per_million: {prompt: $0.15, completion: 0}"),
        "write the number alone, it is always",
    ),
    "price without a zero": (priced("per_million: {prompt: .5, completion: 0}"), "such as 0.15; write 0.5"),
    "price empty": (
        priced("per_million: {prompt: , completion: 0}"),
        "per_million.prompt: is empty; give a decimal such",
    ),
    "price of a token for a million": (
        priced("per_unit: {prompt: 0.15, completion: 0}"),
        "line 5: models[0].prices[0].per_unit.prompt: is 0.15 USD for a single token; is it meant per_million?",
    ),
    "price above all bounds": (
        priced("per_unit: {prompt: 0, completion: 0, request: 1001}"),
        "give a decimal from 0 to",
    ),
    "price too precise": (
        priced("per_million: {prompt: 0.0000000000001, completion: 0}"),
        "line 5: models[0].prices[0].per_million.prompt: has 19 decimal places: at most 18 are kept exactly",
    ),
    "price in both groups": (
        priced("{per_million: {prompt: 1, completion: 1}, per_unit: {prompt: 0.000001}}"),
        "line 5: models[0].prices[0].per_unit.prompt: is given under per_million too; keep one of them",
    ),
    "image per million": (
        priced("per_million: {prompt: 1, completion: 1, image: 1}"),
        f"line 5: models[0].prices[0].per_million.image: unknown key; {KEYS_OF_PER_MILLION}",
    ),
    "group of the wrong shape": (
        priced("per_million: 3"),
        "line 5: models[0].prices[0].per_million: is a single value; write `key: value` lines below it (prompt,",
    ),
    "price in the future only": (
        priced("{effective: 2026-06-02, per_million: {prompt: 1, completion: 1}}"),
        "line 4: models[0].prices: none is in force yet; add one without `effective`, which holds until the",
    ),
    "two prices from the beginning": (
        priced("per_million: {prompt: 1, completion: 1}\n      - per_million: {prompt: 2, completion: 2}"),
        "line 6: models[0].prices[1].effective: has no `effective`, as the price on line 5; only one can hold",
    ),
    "two prices at one moment": (
        priced(
            "{effective: 2026-01-01, per_million: {prompt: 1, completion: 1}}\n"
            "      - {effective: 2026-01-01T01:00:00+01:00, per_million: {prompt: 2, completion: 2}}"
        ),
        "line 6: models[0].prices[1].effective: begins at the same moment, as the price on line 5; only one can hold",
    ),
    # Deployments.
    "unknown model": (
        GOOD.replace("model: acme/small", "model: acme/smal"),
        "line 8: deployments[0].model: 'acme/smal' is not a model of this document; did you mean acme/small?",
    ),
    "quite another model": (
        GOOD.replace("model: acme/small", "model: other"),
        "line 8: deployments[0].model: 'other' is not a model of this document; add it under `models`, with its price",
    ),
    "no kind": (
        GOOD.replace("    kind: vllm\n", ""),
        "line 7: deployments[0].kind: is missing; give one of vllm, sglang, llamacpp, openai",
    ),
    "kind": (
        GOOD.replace("kind: vllm", "kind: ollama"),
        "line 9: deployments[0].kind: 'ollama' is not one of vllm, sglang, llamacpp, openai; did you mean llamacpp?",
    ),
    "deployment id twice": (
        GOOD + "  - {id: gpu-1, model: acme/small, kind: vllm, base_url: 'http://h'}\n",
        "line 11: deployments[1].id: is the id of another entry, on line 7; ids must differ",
    ),
    "another scheme": (
        GOOD.replace("http://", "ftp://"),
        "line 10: deployments[0].base_url: does not begin with http:// or https://",
    ),
    "no host": (GOOD.replace("10.0.0.5:8000", ""), "line 10: deployments[0].base_url: has no host or no usable port"),
    "bad port": (GOOD.replace("8000", "80000"), "line 10: deployments[0].base_url: is not an address such as http://"),
    "whole path": (
        GOOD.replace("/v1\n", "/v1/chat/completions\n"),
        "line 10: deployments[0].base_url: ends in /chat/completions, which is added to it; write only what stands",
    ),
    "url with a space": (
        GOOD.replace("/v1\n", "/v 1\n"),
        "line 10: deployments[0].base_url: holds spaces or characters",
    ),
    "credential empty": (deployed("credential: {}"), "line 11: deployments[0].credential: give exactly one of env"),
    "credential null": (
        deployed("credential:"),
        "line 11: deployments[0].credential: is empty; write `key: value` lines",
    ),
    "credential twice": (
        deployed("credential: {env: A, file: /a}"),
        "line 11: deployments[0].credential: give exactly one of env (the name of an environment variable) and file (a",
    ),
    "relative credential file": (
        deployed("credential: {file: secrets/a}"),
        "line 11: deployments[0].credential.file: this is not an absolute path of a file on the edge",
    ),
    "weight": (
        deployed("weight: -1"),
        "line 11: deployments[0].weight: '-1' is not a whole number from 0 to 10000",
    ),
    "priority": (
        deployed("priority: 1001"),
        "line 11: deployments[0].priority: '1001' is not a whole number from 0 to 1000",
    ),
    "n_max": (deployed("n_max: 0"), "line 11: deployments[0].n_max: '0' is not a whole number from 1 to 128"),
    "timeout of zero": (
        deployed("idle_timeout_s: 0"),
        "line 11: deployments[0].idle_timeout_s: '0' is not a number of seconds from 0.001 to 3600, with at most three",
    ),
    "timeout with a unit": (
        deployed("connect_timeout_s: 5s"),
        "line 11: deployments[0].connect_timeout_s: '5s' is not a number of seconds from 0.001 to 60, with at",
    ),
    "timeout too fine": (deployed("commit_after_s: 0.0001"), "from 0 to 3600 (0: never), with at most three decimal"),
    "yes": (
        deployed("accepts_stream_options: yes"),
        "line 11: deployments[0].accepts_stream_options: 'yes' is not true or false; write one of these two words",
    ),
    "resource": (deployed("resources: [chat]"), "line 11: deployments[0].resources[0]: 'chat' is not one of chat_"),
    "allowed field": (
        deployed("allow: [priority, prevoius_response_id]"),
        "line 11: deployments[0].allow[1]: 'prevoius_response_id' is not a name that \"What `allow` may name\" in "
        "docs/catalog.md lists, such as previous_response_id; did you mean previous_response_id?",
    ),
    "abort without continuous usage": (
        GOOD.replace("vllm", "llamacpp") + "    client_gone: abort\n",
        "line 11: deployments[0].client_gone: abort needs accepts_continuous_usage: true, since what was generated is",
    ),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_a_bad_document_is_refused_with_its_line_and_what_to_do(name: str) -> None:
    text, expected = BAD_DOCUMENTS[name]
    found = faults(text)
    assert any(expected in fault for fault in found), found
    if expected.startswith("line"):
        assert any(fault.startswith(expected) for fault in found), found


def test_all_faults_are_reported_together_in_the_order_of_lines() -> None:
    found = faults(GOOD.replace("8192", "x").replace("0.10", "x").replace("vllm", "x").replace("http:", "x:"))
    assert [fault.split(":")[0] for fault in found] == ["line 3", "line 5", "line 9", "line 10"]


def test_at_most_fifty_faults_are_reported_and_the_rest_counted() -> None:
    with pytest.raises(DocumentInvalid) as caught:
        parse_document("models: []\ndeployments:\n" + "- {}\n" * 40, NOW)
    assert (len(caught.value.problems), caught.value.count) == (50, 160)


def test_documents_beyond_their_bounds_are_refused() -> None:
    assert "more than 4194304 bytes" in faults("#" * (MAX_DOCUMENT_BYTES + 1))[0]
    entries = "[" + "x," * (MAX_DEPLOYMENTS + 1) + "]"
    found = faults(f"models: []\ndeployments: {entries}\n")
    assert found == ["line 2: deployments: has 20001 entries; at most 20000 are allowed"]
    assert "more than 500000 values" in faults("models: [" + "x," * 500_001 + "]")[0]


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("abmodels:prices[]{}&*!|>-?#%@'\"\\ \n\t0123.,é\u2028"), max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    refused: DocumentInvalid | None = None
    try:
        parse_document(text, NOW)
    except DocumentInvalid as error:
        refused = error
    if refused is not None:
        assert 1 <= len(refused.problems) <= 50
        assert all(problem.line >= 1 for problem in refused.problems)
