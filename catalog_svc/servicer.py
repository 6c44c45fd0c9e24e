"""The wire: validates, converts, calls."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, NoReturn

import grpc

from catalog_svc import metrics
from catalog_svc.application import Application, apply_document
from catalog_svc.catalog import Document
from catalog_svc.convert import change_to_pb, snapshot_from_pb, snapshot_to_pb
from catalog_svc.document import parse_document
from catalog_svc.problems import DocumentInvalid
from catalog_svc.snapshot_feed import SnapshotFeed
from catalog_svc.store import CatalogStore, Decision, StoredSnapshot
from chassis import pages
from chassis.clock import Clock
from chassis.faults import FieldViolation, InvalidArgument, NotFound, Unavailable
from chassis.log import logger
from protos.catalog.v1 import catalog_pb2 as pb
from protos.catalog.v1 import catalog_pb2_grpc as pb_grpc

_log = logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class CatalogServicer(pb_grpc.CatalogServiceServicer):
    """Reading the catalog."""

    def __init__(self, feed: SnapshotFeed) -> None:
        self._feed = feed

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Context) -> pb.GetSnapshotResponse:  # noqa: N802
        newest = await self._feed.newest()
        if newest is None:
            _refuse_empty()
        return pb.GetSnapshotResponse(snapshot=newest)

    async def WatchSnapshot(  # noqa: N802
        self, request: pb.WatchSnapshotRequest, context: Context
    ) -> AsyncIterator[pb.WatchSnapshotResponse]:
        if request.after_number < 0:
            raise InvalidArgument("after_number", "give the number already held, or 0 for none")
        async for message in self._feed.watch(request.after_number):
            yield message

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        size = pages.page_size(request.page_size)
        after = pages.key_from_page_token(request.page_token, "models")
        newest = await self._feed.newest()
        models = newest.models if newest is not None else []
        start = bisect_right(models, after, key=lambda model: model.model_id)
        page = models[start : start + size]
        more = start + size < len(models)
        return pb.ListModelsResponse(
            models=page, next_page_token=pages.page_token(page[-1].model_id, "models") if more else ""
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:  # noqa: N802
        if not request.model_id:
            raise InvalidArgument("model_id", "say which model")
        newest = await self._feed.newest()
        for model in newest.models if newest is not None else ():
            if model.model_id == request.model_id:
                assert newest is not None  # it has a model
                serving = [each for each in newest.deployments if each.model_id == request.model_id]
                return pb.GetModelResponse(model=model, deployments=serving)
        raise NotFound(
            "MODEL_NOT_FOUND", f"no model {request.model_id[:100]!r} in the catalog: list the models to see their ids"
        )


class CatalogAdminServicer(pb_grpc.CatalogAdminServiceServicer):
    """For operators."""

    def __init__(self, store: CatalogStore, feed: SnapshotFeed, clock: Clock) -> None:
        self._store = store
        self._feed = feed
        self._clock = clock
        self._parsing = asyncio.Lock()  # one large document at a time has a thread of this process

    async def ApplyDocument(self, request: pb.ApplyDocumentRequest, context: Context) -> pb.ApplyDocumentResponse:  # noqa: N802
        now = self._clock.now()
        document = await self._parsed(request.document, now)
        if request.dry_run:
            metrics.APPLICATIONS.labels("dry_run").inc()
            newest = await self._store.newest_snapshot()
            return (await asyncio.to_thread(_decision, newest, document, request, now)).response
        result = "repeated"

        async def decide(newest: StoredSnapshot | None) -> Decision[pb.ApplyDocumentResponse]:
            nonlocal result
            # Later than the parse, since it may have waited for other appliers; never earlier, since the parse has
            # seen to it that each model has a price in force.
            later = max(now, self._clock.now())
            # Off the event loop, since a large catalog takes seconds and watchers must go on hearing heartbeats.
            decision = await asyncio.to_thread(_decision, newest, document, request, later)
            result = "changed" if decision.snapshot is not None else "unchanged"
            return decision

        response = await self._store.write_once(request, pb.ApplyDocumentResponse, now, decide)
        metrics.APPLICATIONS.labels(result).inc()
        if result == "changed":
            _log.info("catalog changed", snapshot_number=response.number, changes=len(response.changes))
            try:
                await self._feed.newest()  # whoever watches here hears of it now
            except Unavailable:
                pass  # it is committed; the poll will find it
        return response

    async def GetDocument(self, request: pb.GetDocumentRequest, context: Context) -> pb.GetDocumentResponse:  # noqa: N802
        stored = await self._store.newest_document()
        if stored is None:
            _refuse_empty()
        return pb.GetDocumentResponse(document=stored.document, number=stored.number)

    async def _parsed(self, text: str, now: datetime) -> Document:
        """The document, read in a thread of its own since a large one takes seconds.

        Raises:
            InvalidArgument: with one violation for each fault of the document (CATALOG_INVALID).
        """
        async with self._parsing:
            try:
                return await asyncio.to_thread(parse_document, text, now)
            except DocumentInvalid as error:
                metrics.APPLICATIONS.labels("invalid").inc()
                raise _invalid(error) from None


def _decision(
    newest: StoredSnapshot | None, document: Document, request: pb.ApplyDocumentRequest, now: datetime
) -> Decision[pb.ApplyDocumentResponse]:
    before = snapshot_from_pb(pb.Snapshot.FromString(newest.content)) if newest is not None else None
    application = apply_document(before, document, now)
    changed = bool(application.changes) and not request.dry_run
    number = application.snapshot.number if changed else (newest.number if newest is not None else 0)
    return Decision(
        response=pb.ApplyDocumentResponse(
            number=number, changes=[change_to_pb(change) for change in application.changes]
        ),
        document=request.document,
        snapshot=_stored(application) if changed else None,
        versions=[(model.terms.model_id, version) for model in application.snapshot.models for version in model.prices],
    )


def _stored(application: Application) -> StoredSnapshot:
    snapshot = application.snapshot
    content = snapshot_to_pb(snapshot).SerializeToString(deterministic=True)
    return StoredSnapshot(snapshot.number, snapshot.create_time, content)


def _invalid(error: DocumentInvalid) -> InvalidArgument:
    faults = "one fault" if error.count == 1 else f"{error.count} faults"
    violations = [FieldViolation("document", str(problem)) for problem in error.problems]
    message = f"{faults}, and nothing was changed; {violations[0].message}"
    return InvalidArgument("document", message, "CATALOG_INVALID", violations)


def _refuse_empty() -> NoReturn:
    raise NotFound("CATALOG_EMPTY", "no catalog document was applied yet: apply one first")
