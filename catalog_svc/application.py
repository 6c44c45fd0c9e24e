"""Applying a document: the newest snapshot and a document in, the next snapshot and what is different out. Pure."""

import dataclasses
from dataclasses import dataclass
from datetime import datetime, timedelta

from catalog_svc.catalog import Document, DocumentModel, Model, Snapshot
from catalog_svc.diff import Change, deployment_changes, model_changes
from catalog_svc.prices import schedule


@dataclass(frozen=True, slots=True)
class Application:
    """What applying would do. Without changes the snapshot equals the newest one and must not be stored."""

    snapshot: Snapshot
    changes: tuple[Change, ...]


def apply_document(newest: Snapshot | None, document: Document, clock_now: datetime) -> Application:
    """The snapshot that follows `newest` when `document` is applied now, sorted by id."""
    now = _application_time(newest, clock_now)
    before = {model.terms.model_id: model for model in newest.models} if newest is not None else {}
    models = [_applied(before.get(model.terms.model_id), model, now) for model in document.models]
    snapshot = Snapshot(
        number=newest.number + 1 if newest is not None else 1,
        create_time=now,
        models=tuple(sorted(models, key=lambda model: model.terms.model_id)),
        deployments=tuple(sorted(document.deployments, key=lambda deployment: deployment.deployment_id)),
    )
    changes = (
        *model_changes(newest.models if newest is not None else (), models, now),
        *deployment_changes(newest.deployments if newest is not None else (), document.deployments),
    )
    return Application(snapshot, changes)


def _application_time(newest: Snapshot | None, clock_now: datetime) -> datetime:
    """Now, but after the newest snapshot even where this replica's clock is behind the one that made it.

    Else a price that began with that snapshot would look like a future one, and be withdrawn.
    """
    if newest is None:
        return clock_now
    return max(clock_now, newest.create_time + timedelta(microseconds=1))


def _applied(before: Model | None, wanted: DocumentModel, now: datetime) -> Model:
    created = wanted.terms.created or (before.terms.created if before is not None else None) or now
    known = before.prices if before is not None else ()
    return Model(
        dataclasses.replace(wanted.terms, created=created),
        schedule(wanted.terms.model_id, known, wanted.spans, now),
    )
