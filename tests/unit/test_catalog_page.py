"""docs/catalog.md lists every key that the parser knows, with its default, and no other."""

import re
from pathlib import Path

import pytest

from catalog_svc.document import DOCUMENT_KEYS
from catalog_svc.document_deployments import (
    CREDENTIAL_KEYS,
    DEFAULT_COMMIT_AFTER_S,
    DEFAULT_CONNECT_TIMEOUT_S,
    DEFAULT_FIRST_BYTE_TIMEOUT_S,
    DEFAULT_IDLE_TIMEOUT_S,
    DEPLOYMENT_ALIASES,
    DEPLOYMENT_KEYS,
)
from catalog_svc.document_models import (
    DEFAULT_TEMPLATE_OVERHEAD_TOKENS,
    FEATURES,
    INPUT_MODALITIES,
    MODEL_ALIASES,
    MODEL_KEYS,
    OUTPUT_MODALITIES,
    PER_MILLION_KEYS,
    PER_UNIT_KEYS,
    PRICE_KEYS,
    QUANTIZATIONS,
    SAMPLING_PARAMETERS,
)
from catalog_svc.refusable_fields import REFUSABLE_FIELDS
from edge.openai.fields import REFUSED

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "catalog.md").read_text()


def tables() -> list[dict[str, list[str]]]:
    """Each table of keys: the cells of a row by its key. What `make docs` writes has a test of its own."""
    found: list[dict[str, list[str]]] = []
    for line in re.sub(r"<!-- table: .*?<!-- end -->", "", PAGE, flags=re.DOTALL).splitlines():
        if line.startswith("| key |"):
            found.append({})
        elif row := re.match(r"\| `([a-z_]+)` \| (.*) \|$", line):
            assert row[1] not in found[-1]
            found[-1][row[1]] = row[2].split(" | ")
    return found


def test_the_page_lists_exactly_the_keys_that_the_parser_knows() -> None:
    document, model, price, dimensions, deployment, credential = tables()
    assert tuple(document) == DOCUMENT_KEYS
    assert tuple(model) == MODEL_KEYS
    assert tuple(price) == PRICE_KEYS
    assert tuple(dimensions) == PER_UNIT_KEYS
    assert tuple(key for key, cells in dimensions.items() if "`per_million`" in cells[0]) == PER_MILLION_KEYS
    assert tuple(deployment) == DEPLOYMENT_KEYS
    assert tuple(credential) == CREDENTIAL_KEYS


def test_what_the_parser_lets_be_allowed_is_what_the_edge_refuses() -> None:
    assert sorted(REFUSABLE_FIELDS) == sorted(REFUSED)


def test_the_page_states_the_defaults_of_the_code() -> None:
    _, model, _, _, deployment, _ = tables()
    assert model["template_overhead_tokens"][0] == f"`{DEFAULT_TEMPLATE_OVERHEAD_TOKENS}`"
    for key, value in (
        ("connect_timeout_s", DEFAULT_CONNECT_TIMEOUT_S),
        ("first_byte_timeout_s", DEFAULT_FIRST_BYTE_TIMEOUT_S),
        ("idle_timeout_s", DEFAULT_IDLE_TIMEOUT_S),
        ("commit_after_s", DEFAULT_COMMIT_AFTER_S),
    ):
        assert deployment[key][0] == f"`{value}`"


def test_the_page_lists_every_word_that_a_model_may_use() -> None:
    _, model, *_ = tables()
    for key, words in (
        ("input_modalities", INPUT_MODALITIES),
        ("output_modalities", OUTPUT_MODALITIES),
        ("quantization", QUANTIZATIONS),
        ("sampling_parameters", SAMPLING_PARAMETERS),
        ("features", FEATURES),
    ):
        assert ", ".join(words) in model[key][1]


@pytest.mark.parametrize(("aliases", "keys"), [(MODEL_ALIASES, MODEL_KEYS), (DEPLOYMENT_ALIASES, DEPLOYMENT_KEYS)])
def test_every_suggestion_is_a_key(aliases: dict[str, str], keys: tuple[str, ...]) -> None:
    assert set(aliases.values()) <= set(keys)
    assert not set(aliases) & set(keys)
