"""The operator's credentials for upstreams: named in the catalog, found here, never logged."""

import os
from pathlib import Path

from protos.catalog.v1 import catalog_pb2


def read_credential(source: catalog_pb2.CredentialSource) -> str | None:
    """The credential, or None where it is not to be found or empty."""
    if source.WhichOneof("source") == "environment_variable":
        return os.environ.get(source.environment_variable, "").strip() or None
    try:
        return Path(source.file).read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def credential_found(source: catalog_pb2.CredentialSource) -> bool:
    """Whether the credential is here and could stand in a header."""
    credential = read_credential(source)
    return credential is not None and credential.isascii() and credential.isprintable()
