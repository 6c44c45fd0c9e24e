"""catalog_svc: applying documents over gRPC, on both engines."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from catalog_svc import DEFAULT_CATALOG
from chassis.faults import AlreadyExists, InvalidArgument, NotFound
from protos.catalog.v1 import catalog_pb2 as pb
from tests.harness.catalog_service import CatalogService, ShiftedClock, catalog_service, new_id

MODEL = """
models:
  - id: acme/small
    context_length: 8192
    prices:
      - per_million: {prompt: 0.10, completion: 0.40}
"""
DEPLOYED = (
    MODEL
    + """
deployments:
  - id: gpu-1
    model: acme/small
    kind: vllm
    base_url: http://10.0.0.5:8000/v1/
    credential: {env: GPU_1_KEY}
"""
)


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def service(database_url: str, clock: ShiftedClock) -> AsyncIterator[CatalogService]:
    async with catalog_service(database_url, clock=clock) as running:
        yield running


def changes(response: pb.ApplyDocumentResponse) -> list[tuple[str, str, str, str, str]]:
    """Readable: kind, subject, field, before, after."""
    return [
        (pb.ChangeKind.Name(each.kind).removeprefix("CHANGE_KIND_"), each.subject, each.field, each.before, each.after)
        for each in response.changes
    ]


async def test_an_empty_catalog_says_so(service: CatalogService) -> None:
    for method, request in (
        (service.catalog.GetSnapshot, pb.GetSnapshotRequest()),
        (service.admin.GetDocument, pb.GetDocumentRequest()),
    ):
        with pytest.raises(NotFound) as caught:
            await service.call(method, request)
        assert caught.value.reason == "CATALOG_EMPTY"
    assert not (await service.call(service.catalog.ListModels, pb.ListModelsRequest())).models


async def test_the_default_catalog_is_the_table_of_the_http_page(service: CatalogService) -> None:
    document = DEFAULT_CATALOG.read_text()
    response = await service.apply(document)
    assert response.number == 1
    assert [kind for kind, *_ in changes(response)] == ["ADDED"] * 3
    models = {model.model_id: model for model in (await service.snapshot()).models}
    table = {
        model_id: (model.context_length, price.prompt, price.input_cache_read, price.completion)
        for model_id, model in models.items()
        for price in model.prices
    }
    assert table == {
        "deepseek-ai/DeepSeek-V4-Flash": (1_000_000, "0.0000001", "", "0.00000028"),
        "Qwen/Qwen3.6-35B-A3B": (262_144, "0.00000015", "0.00000005", "0.000001"),
        "moonshotai/Kimi-K2.6": (262_144, "0.0000007", "", "0.000004"),
    }
    flash = models["deepseek-ai/DeepSeek-V4-Flash"]
    assert (flash.name, flash.quantization, flash.max_output_length) == ("DeepSeek: V4 Flash", "bf16", 128_000)
    assert (list(flash.input_modalities), list(flash.supported_features)) == (["text"], ["tools", "json_mode"])
    assert flash.prices[0].image == flash.prices[0].request == "0"
    stored = await service.call(service.admin.GetDocument, pb.GetDocumentRequest())
    assert (stored.document, stored.number) == (document, 1)


async def test_applying_the_same_again_changes_nothing(service: CatalogService, clock: ShiftedClock) -> None:
    first = await service.apply(DEPLOYED)
    before = await service.snapshot()
    clock.shift += timedelta(days=3)
    again = await service.apply(DEPLOYED)
    assert (again.number, changes(again)) == (first.number, [])
    assert await service.snapshot() == before


async def test_a_document_with_other_comments_is_kept_without_a_new_snapshot(service: CatalogService) -> None:
    await service.apply(MODEL)
    assert (await service.apply("# hello\n" + MODEL)).number == 1
    stored = await service.call(service.admin.GetDocument, pb.GetDocumentRequest())
    assert (stored.document, stored.number) == ("# hello\n" + MODEL, 1)


async def test_a_dry_run_shows_the_difference_and_changes_nothing(service: CatalogService) -> None:
    await service.apply(DEPLOYED)
    before = await service.snapshot()
    edited = (
        DEPLOYED.replace("0.10", "0.20").replace("8192", "4096").replace("gpu-1", "gpu-2")
        + "    weight: 3\n    first_byte_timeout_s: 1.5\n"
    )
    request = pb.ApplyDocumentRequest(document=edited, dry_run=True)
    response = await service.call(service.admin.ApplyDocument, request)
    assert response.number == 1
    assert changes(response) == [
        ("CHANGED", "model acme/small", "context_length", "8192", "4096"),
        ("CHANGED", "model acme/small", "max_output_length", "8192", "4096"),
        ("CHANGED", "model acme/small", "price.prompt", "0.1 USD per 1M tokens", "0.2 USD per 1M tokens"),
        ("ADDED", "deployment gpu-2", "", "", "vllm at http://10.0.0.5:8000/v1 for acme/small"),
        ("REMOVED", "deployment gpu-1", "", "vllm at http://10.0.0.5:8000/v1 for acme/small", ""),
    ]
    assert await service.snapshot() == before
    assert (await service.apply(edited)).changes == response.changes
    assert (await service.snapshot()).number == 2


async def test_each_deployment_setting_arrives(service: CatalogService) -> None:
    await service.apply(
        DEPLOYED.replace("kind: vllm", "kind: llamacpp")
        + """    upstream_model: other
    weight: 0
    priority: 7
    connect_timeout_s: 0.25
    first_byte_timeout_s: 90
    idle_timeout_s: 60.5
    commit_after_s: 0
    accepts_stream_options: false
    accepts_continuous_usage: true
    n_max: 4
    allow: [priority, bootstrap_*]
    resources: [responses]
    client_gone: abort
    output_limit_bounds_reasoning: false
    usage_missing: waive
    upstream_failed: estimate
"""
    )
    deployment = (await service.snapshot()).deployments[0]
    assert deployment.kind == pb.DEPLOYMENT_KIND_LLAMACPP
    assert deployment.base_url == "http://10.0.0.5:8000/v1"
    assert deployment.credential.environment_variable == "GPU_1_KEY"
    assert (deployment.upstream_model, deployment.weight, deployment.priority) == ("other", 0, 7)
    assert deployment.connect_timeout.ToMilliseconds() == 250
    assert deployment.first_byte_timeout.ToMilliseconds() == 90_000
    assert deployment.idle_timeout.ToMilliseconds() == 60_500
    assert deployment.commit_after.ToMilliseconds() == 0
    assert (deployment.accepts_stream_options, deployment.accepts_continuous_usage) == (False, True)
    assert (deployment.n_max, list(deployment.allowed_fields)) == (4, ["priority", "bootstrap_*"])
    assert list(deployment.resources) == ["responses"]
    assert deployment.client_gone == pb.CLIENT_GONE_POLICY_ABORT
    assert deployment.output_limit_bounds_reasoning is False
    assert deployment.usage_missing == pb.ESTIMATE_POLICY_WAIVE
    assert deployment.upstream_failed == pb.ESTIMATE_POLICY_ESTIMATE


async def test_a_bad_document_is_refused_whole_with_the_line_of_each_fault(service: CatalogService) -> None:
    await service.apply(MODEL)
    with pytest.raises(InvalidArgument) as caught:
        await service.apply(MODEL.replace("8192", "many").replace("0.10", "1e-1"))
    assert caught.value.reason == "CATALOG_INVALID"
    assert [violation.message for violation in caught.value.violations] == [
        "line 4: models[0].context_length: 'many' is not a whole number from 1 to 100000000",
        "line 6: models[0].prices[0].per_million.prompt: '1e-1' is not a decimal such as 0.15; write it without an "
        "exponent: 0.1",
    ]
    assert "2 faults, and nothing was changed; line 4" in caught.value.message
    assert (await service.snapshot()).number == 1


async def test_fifty_long_faults_reach_the_caller(service: CatalogService) -> None:
    rows = "".join(f"  - {{id: {'x' * 150}{index}, {'unknown_key_' * 12}: 1}}\n" for index in range(80))
    with pytest.raises(InvalidArgument) as caught:
        await service.apply("models:\n" + rows)
    assert caught.value.reason == "CATALOG_INVALID"
    assert len(caught.value.violations) == 50
    assert "240 faults" in caught.value.message


async def test_a_repeated_request_gets_its_first_answer(service: CatalogService) -> None:
    request_id = new_id()
    first = await service.apply(MODEL, request_id)
    await service.apply(MODEL.replace("0.10", "0.20"))
    assert await service.apply(MODEL, request_id) == first
    assert (await service.snapshot()).number == 2  # the repeat did not bring the old price back
    with pytest.raises(AlreadyExists) as caught:
        await service.apply(DEPLOYED, request_id)
    assert caught.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(InvalidArgument) as refused:
        await service.call(service.admin.ApplyDocument, pb.ApplyDocumentRequest(document=MODEL))
    assert refused.value.violations[0].field == "request_id"


async def test_many_appliers_at_once_make_numbers_without_gaps(database_url: str) -> None:
    async with catalog_service(database_url) as one, catalog_service(database_url) as other:
        documents = [MODEL.replace("8192", str(8192 + index)) for index in range(12)]
        answers = await asyncio.gather(
            *((one, other)[index % 2].apply(document) for index, document in enumerate(documents))
        )
        assert sorted(answer.number for answer in answers) == list(range(1, 13))
        # Each saw exactly what the one before it had made.
        seen = {answer.number: {change.field: change for change in answer.changes} for answer in answers}
        for number in range(2, 13):
            if number > 2:
                assert seen[number]["context_length"].before == seen[number - 1]["context_length"].after
        assert (await one.snapshot()) == (await other.snapshot())


async def test_the_same_request_sent_twice_at_once_is_applied_once(database_url: str) -> None:
    async with catalog_service(database_url) as one, catalog_service(database_url) as other:
        request_id = new_id()
        answers = await asyncio.gather(*(each.apply(MODEL, request_id) for each in (one, other, one, other)))
        assert all(answer == answers[0] for answer in answers)
        assert (await one.snapshot()).number == 1


async def test_everything_is_there_after_a_restart(database_url: str) -> None:
    async with catalog_service(database_url) as before:
        await before.apply(DEPLOYED)
        snapshot = await before.snapshot()
    async with catalog_service(database_url) as after:
        assert await after.snapshot() == snapshot
        assert (await after.apply(DEPLOYED)).number == 1
        assert (await after.apply(MODEL)).number == 2


async def test_models_come_in_pages_sorted_by_id(service: CatalogService) -> None:
    with pytest.raises(NotFound):
        await service.call(service.catalog.GetModel, pb.GetModelRequest(model_id="acme/m0"))
    rows = "".join(
        f"  - {{id: acme/m{index}, context_length: 10, prices: [{{per_unit: {{prompt: 0, completion: 0}}}}]}}\n"
        for index in (4, 2, 0, 3, 1)
    )
    await service.apply("models:\n" + rows)
    found, token = [], ""
    while True:
        page = await service.call(service.catalog.ListModels, pb.ListModelsRequest(page_size=2, page_token=token))
        assert len(page.models) <= 2
        found += [model.model_id for model in page.models]
        token = page.next_page_token
        if not token:
            break
    assert found == [f"acme/m{index}" for index in range(5)]
    for request in (pb.ListModelsRequest(page_size=-1), pb.ListModelsRequest(page_token="nonsense")):
        with pytest.raises(InvalidArgument):
            await service.call(service.catalog.ListModels, request)


async def test_a_model_is_read_with_its_deployments(service: CatalogService) -> None:
    await service.apply(DEPLOYED)
    answer = await service.call(service.catalog.GetModel, pb.GetModelRequest(model_id="acme/small"))
    assert answer.model.model_id == "acme/small"
    assert [deployment.deployment_id for deployment in answer.deployments] == ["gpu-1"]
    with pytest.raises(NotFound) as caught:
        await service.call(service.catalog.GetModel, pb.GetModelRequest(model_id="acme/none"))
    assert caught.value.reason == "MODEL_NOT_FOUND"
    with pytest.raises(InvalidArgument):
        await service.call(service.catalog.GetModel, pb.GetModelRequest())


async def test_an_empty_document_takes_everything_off(service: CatalogService) -> None:
    await service.apply(DEPLOYED)
    response = await service.apply("models: []\n")
    assert [(kind, subject) for kind, subject, *_ in changes(response)] == [
        ("REMOVED", "model acme/small"),
        ("REMOVED", "deployment gpu-1"),
    ]
    snapshot = await service.snapshot()
    assert (snapshot.number, len(snapshot.models), len(snapshot.deployments)) == (2, 0, 0)
