"""The catalog document: YAML in, a checked Document out, or everything that is wrong with it.

docs/catalog.md explains every key to operators; a test holds that page and the keys here together.
"""

from collections.abc import Iterable
from datetime import datetime

from catalog_svc.catalog import Document
from catalog_svc.document_deployments import DEPLOYMENT_ALIASES, DEPLOYMENT_KEYS, read_deployment
from catalog_svc.document_models import MODEL_ALIASES, MODEL_KEYS, read_model
from catalog_svc.fields import Section, did_you_mean
from catalog_svc.problems import Problems, shown
from catalog_svc.tree import Mapping, described, parse_tree

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MAX_MODELS = 10_000
MAX_DEPLOYMENTS = 20_000

DOCUMENT_KEYS = ("models", "deployments")


def parse_document(text: str, now: datetime) -> Document:
    """Reads and checks a document; takes seconds for a large one, so keep it off the event loop.

    `now` decides which of a model's prices is in force: there must be one.

    Raises:
        DocumentInvalid: one or more faults, each with its line and what to do.
    """
    problems = Problems()
    if len(text.encode(errors="replace")) > MAX_DOCUMENT_BYTES:
        problems.add(1, "", f"the document has more than {MAX_DOCUMENT_BYTES} bytes; leave out what is not served")
        problems.raise_if_any()
    root = parse_tree(text, problems)
    if root is not None and not isinstance(root, Mapping):
        problems.add(root.line, "", f"the document is {described(root)}; start with `models:`")
    if not isinstance(root, Mapping):
        problems.raise_if_any()
        raise AssertionError("unreachable: a tree that could not be read has noted why")
    top = Section(root, "", DOCUMENT_KEYS, problems)
    if "models" not in top:
        top.note("models", "is missing; list what customers can use, or write `models: []` to offer nothing")
    model_sections = list(top.groups("models", MODEL_KEYS, MAX_MODELS, MODEL_ALIASES))
    models = [read_model(section, now) for section in model_sections]
    deployment_sections = list(top.groups("deployments", DEPLOYMENT_KEYS, MAX_DEPLOYMENTS, DEPLOYMENT_ALIASES))
    deployments = [read_deployment(section) for section in deployment_sections]

    _refuse_repeated_ids((model.terms.model_id, section) for model, section in zip(models, model_sections, strict=True))
    _refuse_repeated_ids(
        (deployment.deployment_id, section)
        for deployment, section in zip(deployments, deployment_sections, strict=True)
    )
    known = {model.terms.model_id for model in models}
    for deployment, section in zip(deployments, deployment_sections, strict=True):
        if deployment.model_id and deployment.model_id not in known:
            hint = did_you_mean(deployment.model_id, known)
            if not hint:
                hint = "; add it under `models`, with its price"
            section.note("model", f"{shown(deployment.model_id)} is not a model of this document{hint}")
    problems.raise_if_any()
    return Document(tuple(models), tuple(deployments))


def _refuse_repeated_ids(entries: Iterable[tuple[str, Section]]) -> None:
    first_lines: dict[str, int] = {}
    for entry_id, section in entries:
        if not entry_id:
            continue  # missing or faulty: noted already
        if entry_id in first_lines:
            section.note("id", f"is the id of another entry, on line {first_lines[entry_id]}; ids must differ")
        else:
            first_lines[entry_id] = section.line_of("id")
