"""catalog_svc: a secret that found its way into a document is refused, and does not travel further."""

import pytest

from tests.unit.test_catalog_faults import GOOD, deployed, faults

SECRETS: dict[str, tuple[str, str]] = {
    "as the credential": (
        deployed("credential: sk-very-secret"),
        "line 11: deployments[0].credential: holds the secret",
    ),
    "as a name": (
        deployed("credential: {env: sk-very-secret}"),
        "credential.env: this is not the name of an environment",
    ),
    "under value": (
        deployed("credential: {value: sk-very-secret}"),
        "credential.value: unknown key; the keys here are",
    ),
    "as api_key": (
        deployed("api_key: sk-very-secret"),
        "deployments[0].api_key: unknown key; did you mean credential?",
    ),
    "in the address": (
        GOOD.replace("10.0", "me:sk-very-secret@10.0"),
        "line 10: deployments[0].base_url: holds a user",
    ),
    "in the query": (
        GOOD.replace("/v1\n", "/v1?key=sk-very-secret\n"),
        "base_url: holds a query or fragment; leave it",
    ),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_the_document_is_refused_and_not_repeated(name: str) -> None:
    text, expected = SECRETS[name]
    found = "\n".join(faults(text))
    assert expected in found
    assert "very-secret" not in found
