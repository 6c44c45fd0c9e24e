"""Which catalog a starting stack gets, and how the local model comes into it."""

from importlib.resources import files

from chassis.faults import NotFound
from protos.catalog.v1 import catalog_pb2
from tollgate import local_model
from tollgate.models import apply_document
from tollgate.services import Services, new_request_id

DEPLOYMENT_ID = "local-smollm2"

# In front of the default catalog's models. The price is a made-up one, so that a bill has something to show.
_MODEL = f"""\
  # Added by `tollgate up --local-model`: runs on this machine, and costs its demo account a little all the same.
  - id: {local_model.MODEL_ID}
    name: "SmolLM2 135M Instruct (this machine)"
    description: A very small model, to try Tollgate with.
    hugging_face_id: HuggingFaceTB/SmolLM2-135M-Instruct
    quantization: int4
    context_length: {local_model.CONTEXT_TOKENS}
    max_output_length: {local_model.CONTEXT_TOKENS // 2}
    sampling_parameters: [temperature, top_p, top_k, min_p, frequency_penalty, presence_penalty, stop, seed, max_tokens]
    features: [json_mode, structured_outputs]
    prices:
      - per_million: {{prompt: 0.10, completion: 0.40, input_cache_read: 0.05}}

"""

_DEPLOYMENT = """
# Added by `tollgate up --local-model`; its port may change from start to start, and is then set here again.
deployments:
  - id: {deployment_id}
    model: {model_id}
    kind: llamacpp
    base_url: {base_url}
    upstream_model: {upstream_model}
"""


def default_document() -> str:
    """The catalog that ships with catalog_svc: models and prices, served by nobody yet."""
    return files("catalog_svc").joinpath("default_catalog.yaml").read_text()


def document_with_local_model(base_url: str) -> str:
    """The default catalog with the local model in front, served at `base_url`."""
    before, models, after = default_document().partition("\nmodels:\n")
    assert models, "the default catalog has no list of models"
    return f"{before}{models}{_MODEL}{after}" + _DEPLOYMENT.format(
        deployment_id=DEPLOYMENT_ID,
        model_id=local_model.MODEL_ID,
        base_url=base_url,
        upstream_model=local_model.UPSTREAM_MODEL,
    )


async def set_catalog(services: Services, own_document: str | None, local_model_url: str | None) -> str:
    """Gives catalog_svc a catalog, and never takes away one that an operator applied. Returns what was done.

    Raises:
        InvalidArgument: the operator's document is bad (CATALOG_INVALID).
    """
    if own_document is not None:
        return await _apply(services, own_document, "your catalog")
    try:
        held = (await services.call(services.catalog_admin.GetDocument, catalog_pb2.GetDocumentRequest())).document
    except NotFound:
        held = ""
    untouched = held in ("", default_document())
    if local_model_url is None:
        if held:
            return "the catalog is as it was"
        return await _apply(services, default_document(), "the default catalog: models without upstreams yet")
    if untouched:
        document = document_with_local_model(local_model_url)
        return await _apply(services, document, "the default catalog and the local model")
    return await _move_local_model(services, held, local_model_url)


async def _move_local_model(services: Services, held: str, base_url: str) -> str:
    """Points the deployment of the local model to where it runs now, in whatever document it stands."""
    snapshot = (await services.call(services.catalog.GetSnapshot, catalog_pb2.GetSnapshotRequest())).snapshot
    urls = [each.base_url for each in snapshot.deployments if each.deployment_id == DEPLOYMENT_ID]
    if not urls:
        return f"the catalog is your own and has no deployment {DEPLOYMENT_ID}: the local model is not in it"
    if urls[0] == base_url:
        return "the catalog is as it was"
    return await _apply(services, held.replace(urls[0], base_url), "the catalog, with the local model's new address")


async def _apply(services: Services, document: str, what: str) -> str:
    applied = await apply_document(services, document, dry_run=False, request_id=new_request_id())
    return f"{what} ({'snapshot' if applied['changes'] else 'unchanged, snapshot'} {applied['number']})"
