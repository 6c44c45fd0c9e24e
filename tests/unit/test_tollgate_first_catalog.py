"""The catalog that a starting stack gets."""

from datetime import UTC, datetime

from catalog_svc.document import parse_document
from tollgate import local_model
from tollgate.first_catalog import DEPLOYMENT_ID, default_document, document_with_local_model

NOW = datetime(2027, 1, 1, tzinfo=UTC)


def test_the_default_catalog_is_served_by_nobody() -> None:
    document = parse_document(default_document(), NOW)
    assert document.models
    assert not document.deployments


def test_the_local_model_comes_on_top_of_the_default_catalog() -> None:
    plain = parse_document(default_document(), NOW)
    document = parse_document(document_with_local_model("http://127.0.0.1:5000/v1"), NOW)
    assert {model.terms.model_id for model in document.models} == {
        local_model.MODEL_ID,
        *(model.terms.model_id for model in plain.models),
    }
    [deployment] = document.deployments
    assert deployment.deployment_id == DEPLOYMENT_ID
    assert deployment.model_id == local_model.MODEL_ID
    assert deployment.base_url == "http://127.0.0.1:5000/v1"
