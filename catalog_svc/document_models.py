"""Models and their prices in a catalog document."""

import re
from datetime import UTC, datetime
from decimal import Decimal

from catalog_svc.catalog import DocumentModel, ModelTerms, PriceSpan
from catalog_svc.fields import Section, plain
from catalog_svc.prices import PER_MILLION, span_in_force
from pricing import Price

MODEL_KEYS = (
    "id",
    "name",
    "description",
    "owned_by",
    "hugging_face_id",
    "created",
    "input_modalities",
    "output_modalities",
    "quantization",
    "context_length",
    "max_output_length",
    "sampling_parameters",
    "features",
    "datacenters",
    "deprecation_date",
    "hold_output_tokens",
    "template_overhead_tokens",
    "prices",
)
PRICE_KEYS = ("effective", "per_million", "per_unit")
PER_MILLION_KEYS = PER_MILLION
PER_UNIT_KEYS = (*PER_MILLION_KEYS, "image", "request")

MODEL_ALIASES = {
    "model": "id",
    "price": "prices",
    "pricing": "prices",
    "context": "context_length",
    "max_tokens": "max_output_length",
    "max_output_tokens": "max_output_length",
    "max_completion_tokens": "max_output_length",
    "supported_features": "features",
    "supported_sampling_parameters": "sampling_parameters",
    "modalities": "input_modalities",
    "create_time": "created",
    "deprecation_time": "deprecation_date",
}
_PRICE_ALIASES = {
    "from": "effective",
    "effective_time": "effective",
    "per_1m": "per_million",
    "prompt": "per_million.prompt",
    "completion": "per_million.completion",
}
_DIMENSION_ALIASES = {
    "input": "prompt",
    "output": "completion",
    "cached": "input_cache_read",
    "cache_read": "input_cache_read",
    "cache_write": "input_cache_write",
}

# The words of GET /v1/models (docs/http-api.md); the same ones that OpenRouter's provider schema knows.
INPUT_MODALITIES = ("text", "image", "file", "audio", "video")
OUTPUT_MODALITIES = ("text", "image", "audio")
QUANTIZATIONS = ("int4", "int8", "fp4", "mxfp4", "nvfp4", "fp6", "fp8", "mxfp8", "fp16", "bf16", "fp32")
SAMPLING_PARAMETERS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "top_a",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "stop",
    "seed",
    "max_tokens",
    "logit_bias",
)
FEATURES = ("tools", "json_mode", "structured_outputs", "logprobs", "web_search", "reasoning")

MAX_CONTEXT_LENGTH = 100_000_000
MAX_TEMPLATE_OVERHEAD_TOKENS = 1_000_000
MAX_PRICES = 100
# Ten thousand USD per million tokens, far above any price list: above it, somebody mistook the unit.
MAX_TOKEN_PRICE_USD = Decimal("0.01")
# Above what the default system prompts and tool preambles of today's chat templates add.
DEFAULT_TEMPLATE_OVERHEAD_TOKENS = 512

_PRICE_NEEDED = "a model needs a price in force; write 0 out where something is free"

_EVER = datetime.min.replace(tzinfo=UTC)

_MODEL_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:@+/-]*[A-Za-z0-9])?")
_HUGGING_FACE_ID = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
_COUNTRY = re.compile(r"[A-Z]{2}")


def read_model(section: Section, now: datetime) -> DocumentModel:
    """One entry of `models`; faults are noted in the section."""
    model_id = section.text(
        "id",
        None,
        "a model id such as Qwen/Qwen3.6-35B-A3B (letters, digits and . _ : @ + / - between them)",
        pattern=_MODEL_ID,
    )
    context_length = section.integer("context_length", None, 1, MAX_CONTEXT_LENGTH)
    max_output_length = section.integer("max_output_length", context_length, 1, MAX_CONTEXT_LENGTH)
    if max_output_length > context_length and "context_length" in section:
        section.note(
            "max_output_length",
            f"{max_output_length} is more than the context_length of {context_length}; an answer has to fit into it",
        )
    terms = ModelTerms(
        model_id=model_id,
        name=section.text("name", model_id, "a name for people"),
        description=section.text("description", "", "a text for people", chars_max=4000),
        owned_by=section.text("owned_by", _owner(model_id), "the name of an organisation"),
        hugging_face_id=section.text(
            "hugging_face_id", "", "an id such as Qwen/Qwen3.6-35B-A3B", pattern=_HUGGING_FACE_ID
        ),
        created=section.moment("created"),
        input_modalities=section.words("input_modalities", ("text",), allowed=INPUT_MODALITIES, at_least_one=True),
        output_modalities=section.words("output_modalities", ("text",), allowed=OUTPUT_MODALITIES, at_least_one=True),
        quantization=section.choice("quantization", "", QUANTIZATIONS),
        context_length=context_length,
        max_output_length=max_output_length,
        sampling_parameters=section.words("sampling_parameters", (), allowed=SAMPLING_PARAMETERS),
        features=section.words("features", (), allowed=FEATURES),
        datacenters=section.words("datacenters", (), pattern=_COUNTRY, what="a country code such as NO"),
        deprecation_date=section.day("deprecation_date"),
        hold_output_tokens=_hold_output_tokens(section, max_output_length),
        template_overhead_tokens=section.integer(
            "template_overhead_tokens", DEFAULT_TEMPLATE_OVERHEAD_TOKENS, 0, MAX_TEMPLATE_OVERHEAD_TOKENS
        ),
    )
    return DocumentModel(terms, _read_prices(section, now))


def _owner(model_id: str) -> str:
    organisation, slash, _ = model_id.partition("/")
    return organisation if slash else "operator"


def _hold_output_tokens(section: Section, max_output_length: int) -> int:
    tokens = section.integer("hold_output_tokens", 0, 0, MAX_CONTEXT_LENGTH)
    if tokens > max_output_length:
        section.note(
            "hold_output_tokens",
            f"{tokens} is more than the max_output_length of {max_output_length}; leave it out to hold that much",
        )
    return tokens


def _read_prices(section: Section, now: datetime) -> tuple[PriceSpan, ...]:
    """The prices in the order of time. There must be one in force: a model is never served for nothing by omission."""
    if section.node("prices") is None:
        section.note("prices", f"is missing; {_PRICE_NEEDED}")
    entries = list(section.groups("prices", PRICE_KEYS, MAX_PRICES, _PRICE_ALIASES, if_empty=_PRICE_NEEDED))
    spans: list[PriceSpan] = []
    lines: dict[datetime | None, int] = {}
    for entry in entries:
        span = _read_price(entry)
        if span is None:
            continue
        if span.effective_time in lines:
            when = "has no `effective`" if span.effective_time is None else "begins at the same moment"
            entry.note("effective", f"{when}, as the price on line {lines[span.effective_time]}; only one can hold")
        lines.setdefault(span.effective_time, entry.line)
        spans.append(span)
    spans.sort(key=lambda span: span.effective_time or _EVER)
    if len(spans) == len(entries) > 0 and span_in_force(spans, now) is None:
        section.note("prices", "none is in force yet; add one without `effective`, which holds until the others begin")
    return tuple(spans)


def _read_price(entry: Section) -> PriceSpan | None:
    effective_time = entry.moment("effective")
    faulty = "effective" in entry and effective_time is None
    values: dict[str, Decimal] = {}
    for group_key, dimensions, divisor_digits in (
        ("per_million", PER_MILLION_KEYS, 6),
        ("per_unit", PER_UNIT_KEYS, 0),
    ):
        group = entry.group(group_key, dimensions, _DIMENSION_ALIASES)
        for dimension in dimensions if group is not None else ():
            assert group is not None  # the loop is empty without a group
            if dimension not in group:
                continue
            value = group.decimal(dimension)
            if value is None:
                faulty = True
            elif dimension in values:
                faulty = True
                group.note(dimension, "is given under per_million too; keep one of them")
            else:
                values[dimension] = _shifted(value, divisor_digits)
                faulty = not _accepted(group, dimension, values[dimension]) or faulty
    for dimension in ("prompt", "completion"):
        if dimension not in values and not faulty:
            faulty = True
            entry.note_here(f"has no price for {dimension}; add per_million: {{{dimension}: ...}}, 0 if it is free")
    return None if faulty else PriceSpan(effective_time, _price(values))


def _shifted(value: Decimal, digits: int) -> Decimal:
    """`value` divided by 10 to the `digits`, exactly (no decimal context has a say), without zeros at the end."""
    sign, coefficient, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # a parsed decimal is finite
    return Decimal(plain(Decimal((sign, coefficient, exponent - digits))))


def _accepted(group: Section, dimension: str, value: Decimal) -> bool:
    """Whether rating can work with a value (its bounds are in pricing.Price), and nobody mistook the unit."""
    try:
        Price(prompt=value, completion=value)
    except ValueError as error:
        group.note(dimension, str(error).removeprefix("price prompt "))
        return False
    if dimension in PER_MILLION_KEYS and value > MAX_TOKEN_PRICE_USD:
        group.note(dimension, f"is {plain(value)} USD for a single token; is it meant per_million?")
        return False
    return True


def _price(values: dict[str, Decimal]) -> Price:
    return Price(
        prompt=values["prompt"],
        completion=values["completion"],
        input_cache_read=values.get("input_cache_read"),
        input_cache_write=values.get("input_cache_write"),
        image=values.get("image", Decimal(0)),
        request=values.get("request", Decimal(0)),
    )
