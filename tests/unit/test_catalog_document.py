"""catalog_svc: reading a good document."""

from datetime import UTC, date, datetime
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog_svc import DEFAULT_CATALOG
from catalog_svc.application import apply_document
from catalog_svc.catalog import (
    ClientGonePolicy,
    CredentialSource,
    Deployment,
    DeploymentKind,
    Document,
    EstimatePolicy,
    Resource,
)
from catalog_svc.convert import snapshot_from_pb, snapshot_to_pb
from catalog_svc.document import parse_document
from catalog_svc.document_models import FEATURES, INPUT_MODALITIES, QUANTIZATIONS, SAMPLING_PARAMETERS
from pricing import Price
from protos.catalog.v1 import catalog_pb2 as pb

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


def modelled(line: str) -> str:
    """The good document with another line of its model, which is line 4."""
    return GOOD.replace("    prices:\n", f"    {line}\n    prices:\n")


def priced(price: str) -> str:
    """The good document with another price, which is line 5."""
    return GOOD.replace("per_million: {prompt: 0.10, completion: 0.40}", price)


def test_the_defaults_are_as_documented() -> None:
    document = parse_document(GOOD, NOW)
    (model,), (deployment,) = document.models, document.deployments
    terms = model.terms
    assert (terms.name, terms.owned_by, terms.max_output_length) == ("acme/small", "acme", 8192)
    assert (terms.created, terms.deprecation_date) == (None, None)
    assert (terms.input_modalities, terms.output_modalities) == (("text",), ("text",))
    assert (terms.hold_output_tokens, terms.template_overhead_tokens) == (0, 512)
    assert model.spans[0].effective_time is None
    assert deployment == Deployment(
        deployment_id="gpu-1",
        model_id="acme/small",
        kind=DeploymentKind.VLLM,
        base_url="http://10.0.0.5:8000/v1",
        credential=None,
        upstream_model="",
        weight=1,
        priority=0,
        connect_timeout_s=Decimal(5),
        first_byte_timeout_s=Decimal(600),
        idle_timeout_s=Decimal(120),
        commit_after_s=Decimal(30),
        accepts_stream_options=True,
        accepts_continuous_usage=True,
        n_max=1,
        allowed_fields=(),
        resources=(Resource.CHAT_COMPLETIONS, Resource.RESPONSES),
        client_gone=ClientGonePolicy.DRAIN,
        output_limit_bounds_reasoning=True,
        usage_missing=EstimatePolicy.ESTIMATE,
        upstream_failed=EstimatePolicy.WAIVE,
    )
    for kind in ("llamacpp", "openai"):
        other = parse_document(GOOD.replace("vllm", kind), NOW).deployments[0]
        assert not other.accepts_continuous_usage


def test_values_are_taken_as_written() -> None:
    text = (
        modelled("datacenters: [NO, DE]")
        .replace("acme/small", "1.10")
        .replace("8192", "1_000_000")
        .replace("0.10", '"0.123456789012"')
        .replace("0.40", "100")
        .replace("kind: vllm", "kind: 'vllm'\n    upstream_model: on")
    )
    document = parse_document(text, NOW)
    terms, price = document.models[0].terms, document.models[0].spans[0].price
    assert terms.datacenters == ("NO", "DE")
    assert (terms.model_id, terms.owned_by, terms.context_length) == ("1.10", "operator", 1_000_000)
    assert (price.prompt, price.completion) == (Decimal("0.000000123456789012"), Decimal("0.0001"))
    assert document.deployments[0].upstream_model == "on"


def test_moments_have_zones_and_days_begin_in_utc() -> None:
    text = priced("per_million: {prompt: 1, completion: 1}") + "".join(
        [
            "    credential: {file: /run/secrets/key}\n",
        ]
    )
    text = text.replace(
        "    prices:\n",
        "    created: 2026-05-31\n    deprecation_date: 2027-01-31\n    prices:\n"
        "      - {effective: 2026-07-01T02:30:00.5+02:00, per_million: {prompt: 3, completion: 1}}\n"
        "      - {effective: '2026-05-01 00:00Z', per_million: {prompt: 2, completion: 1}}\n",
    )
    document = parse_document(text, NOW)
    model = document.models[0]
    assert model.terms.created == datetime(2026, 5, 31, tzinfo=UTC)
    assert model.terms.deprecation_date == date(2027, 1, 31)
    assert [span.effective_time for span in model.spans] == [
        None,
        datetime(2026, 5, 1, tzinfo=UTC),
        datetime(2026, 7, 1, 0, 30, 0, 500_000, tzinfo=UTC),
    ]
    assert document.deployments[0].credential == CredentialSource(file="/run/secrets/key")


def test_a_model_may_be_free_if_it_says_so_and_prices_may_be_per_unit() -> None:
    price = (
        parse_document(priced("{per_unit: {prompt: 0, completion: '0.00', image: 0.002, request: 0.5}}"), NOW)
        .models[0]
        .spans[0]
        .price
    )
    assert price == Price(Decimal(0), Decimal(0), image=Decimal("0.002"), request=Decimal("0.5"))


def test_the_default_catalog_and_its_commented_example_are_good_documents() -> None:
    text = DEFAULT_CATALOG.read_text()
    document = parse_document(text, NOW)
    assert (len(document.models), document.deployments) == (3, ())
    example = text[text.index("# deployments:") :]
    uncommented = "\n".join(line.removeprefix("# ") for line in example.splitlines())
    (deployment,) = parse_document(f"{text}\n{uncommented}\n", NOW).deployments
    assert deployment.credential == CredentialSource(environment_variable="UPSTREAM_GPU_1_KEY")


MODEL_IDS = st.sampled_from(["a", "acme/small", "acme/Large-2.5", "1.10", "no", "x:free", "z/@v+1/0"])
MILLIONTHS = st.integers(0, 9999 * 10**6).map(lambda millionths: Decimal(millionths).scaleb(-6))


@st.composite
def model_rows(draw: st.DrawFn, model_id: str) -> str:
    context = draw(st.integers(2, 10**8))
    lines = [f"  - id: '{model_id}'", f"    context_length: {context}"]
    lines.append(f"    max_output_length: {draw(st.integers(1, context))}")
    lines.append(f"    quantization: {draw(st.sampled_from(QUANTIZATIONS))}")
    for key, words in (
        ("input_modalities", INPUT_MODALITIES),
        ("features", FEATURES),
        ("sampling_parameters", SAMPLING_PARAMETERS),
    ):
        chosen = draw(st.lists(st.sampled_from(words), min_size=1, unique=True))
        lines.append(f"    {key}: [{', '.join(chosen)}]")
    lines.append("    prices:")
    for moment in [None, *draw(st.lists(st.dates(date(1990, 1, 1), date(2090, 1, 1)), max_size=3, unique=True))]:
        lines.append(f"      - per_million: {{prompt: {draw(MILLIONTHS)}, completion: '{draw(MILLIONTHS)}'}}")
        if moment is not None:
            lines.append(f"        effective: {moment}")
    return "\n".join(lines)


@st.composite
def documents(draw: st.DrawFn) -> str:
    ids = draw(st.lists(MODEL_IDS, min_size=1, max_size=4, unique=True))
    rows = [draw(model_rows(model_id)) for model_id in ids]
    deployments = [
        f"  - {{id: d{index}, model: '{model_id}', kind: {draw(st.sampled_from(list(DeploymentKind)))}, "
        f"base_url: 'https://h{index}', weight: {draw(st.integers(0, 10_000))}, "
        f"idle_timeout_s: {draw(st.integers(1, 3_600_000).map(lambda ms: Decimal(ms) / 1000))}}}"
        for index, model_id in enumerate(draw(st.lists(st.sampled_from(ids), max_size=4)))
    ]
    return "models:\n" + "\n".join(rows) + "\ndeployments:" + ("\n" + "\n".join(deployments) if deployments else " []")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents())
def test_what_was_written_is_what_is_read_and_survives_the_wire(text: str) -> None:
    document: Document = parse_document(text, NOW)
    for model in document.models:
        assert f"id: '{model.terms.model_id}'" in text
        for span in model.spans:
            for price in (span.price.prompt, span.price.completion):
                assert price * 10**6 == (price * 10**6).quantize(Decimal("0.000001"))
    snapshot = apply_document(None, document, NOW).snapshot
    assert snapshot_from_pb(pb.Snapshot.FromString(snapshot_to_pb(snapshot).SerializeToString())) == snapshot
    assert apply_document(snapshot, document, NOW).changes == ()
