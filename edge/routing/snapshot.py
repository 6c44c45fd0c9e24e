"""The catalog as the hot path needs it: compiled once per snapshot, immutable.

Everything that can be computed before a request comes is: prices as numbers, the refusals of each deployment.
"""

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from math import inf

from edge.openai.fields import REFUSED
from edge.openai.refuse import Refusals
from pricing import Price
from protos.catalog.v1 import catalog_pb2
from protos.usage.v1 import usage_pb2

CHAT, RESPONSES = "chat_completions", "responses"
_KINDS = {
    catalog_pb2.DEPLOYMENT_KIND_VLLM: "vllm",
    catalog_pb2.DEPLOYMENT_KIND_SGLANG: "sglang",
    catalog_pb2.DEPLOYMENT_KIND_LLAMACPP: "llamacpp",
    catalog_pb2.DEPLOYMENT_KIND_OPENAI: "openai",
}


@dataclass(frozen=True, slots=True)
class PricePoint:
    """One version of a price: for computing, and as usage events carry it."""

    effective_time_s: float
    price: Price
    vector: usage_pb2.PriceVector
    vector_bytes: bytes  # the same, serialized


@dataclass(frozen=True, slots=True)
class Deployment:
    """One upstream, ready to be called."""

    deployment_id: str
    model_id: str
    base_url: str
    upstream_model: str
    credential: catalog_pb2.CredentialSource | None
    weight: int
    priority: int
    connect_timeout_s: float
    first_byte_timeout_s: float
    idle_timeout_s: float
    commit_after_s: float  # infinity: never
    accepts_stream_options: bool
    resources: frozenset[str]
    refusals: Refusals
    aborts_abandoned: bool  # closes a chat stream whose client has gone, and asks for usage in every chunk of it
    estimates_missing: bool  # charges a complete answer without usable usage by estimate
    estimates_failed: bool  # charges one that broke off without usage by estimate


@dataclass(frozen=True)
class Model:
    """One model, ready to be priced and routed."""

    pb: catalog_pb2.Model
    model_id: str
    context_length: int
    max_output_length: int
    hold_output_tokens: int
    template_overhead_tokens: int
    prices: tuple[PricePoint, ...]
    deployments: tuple[Deployment, ...]

    def price_at(self, now_s: float) -> PricePoint | None:
        """The price that holds at a moment (seconds since the epoch); None before the first one does."""
        if len(self.prices) == 1:
            only = self.prices[0]
            return only if only.effective_time_s <= now_s else None
        index = bisect.bisect_right(self.prices, now_s, key=lambda point: point.effective_time_s)
        return self.prices[index - 1] if index else None

    @cached_property
    def resources(self) -> frozenset[str]:
        """What some deployment of it serves."""
        return frozenset[str]().union(*(d.resources for d in self.deployments))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One numbered state of the catalog."""

    number: int
    models: Mapping[str, Model]

    def live(self, now_s: float) -> list[Model]:
        """Models that have a price now and a deployment that could serve them."""
        return [m for m in self.models.values() if m.deployments and m.price_at(now_s) is not None]


EMPTY = Snapshot(0, {})


def snapshot_from_pb(
    pb: catalog_pb2.Snapshot, credential_found: Callable[[catalog_pb2.CredentialSource], bool]
) -> Snapshot:
    """Compiles a snapshot. Deployments that are drained, or whose credential is not here, are left out.

    Raises:
        ValueError: a price or kind that this version does not understand; the snapshot is then not used.
    """
    by_model: dict[str, list[Deployment]] = {}
    for each in pb.deployments:
        credential = each.credential if each.HasField("credential") else None
        if each.weight > 0 and (credential is None or credential_found(credential)):
            by_model.setdefault(each.model_id, []).append(_deployment_from_pb(each, credential))
    return Snapshot(
        pb.number, {model.model_id: _model_from_pb(model, by_model.get(model.model_id, ())) for model in pb.models}
    )


def _deployment_from_pb(pb: catalog_pb2.Deployment, credential: catalog_pb2.CredentialSource | None) -> Deployment:
    if pb.kind not in _KINDS:
        raise ValueError(f"deployment {pb.deployment_id} has the unknown kind {pb.kind}: upgrade this edge")
    allow = frozenset(pb.allowed_fields) - unknown_fields(pb)
    commit_after_s = pb.commit_after.ToTimedelta().total_seconds()
    return Deployment(
        deployment_id=pb.deployment_id,
        model_id=pb.model_id,
        base_url=pb.base_url.rstrip("/"),
        upstream_model=pb.upstream_model or pb.model_id,
        credential=credential,
        weight=pb.weight,
        priority=pb.priority,
        connect_timeout_s=pb.connect_timeout.ToTimedelta().total_seconds(),
        first_byte_timeout_s=pb.first_byte_timeout.ToTimedelta().total_seconds(),
        idle_timeout_s=pb.idle_timeout.ToTimedelta().total_seconds(),
        commit_after_s=commit_after_s or inf,
        accepts_stream_options=pb.accepts_stream_options,
        resources=frozenset(pb.resources),
        refusals=Refusals(kind=_KINDS[pb.kind], allow=allow, n_max=pb.n_max),
        aborts_abandoned=pb.client_gone == catalog_pb2.CLIENT_GONE_POLICY_ABORT and pb.accepts_continuous_usage,
        estimates_missing=pb.usage_missing != catalog_pb2.ESTIMATE_POLICY_WAIVE,
        estimates_failed=pb.upstream_failed == catalog_pb2.ESTIMATE_POLICY_ESTIMATE,
    )


def unknown_fields(pb: catalog_pb2.Deployment) -> frozenset[str]:
    """Fields that a deployment allows and this edge does not refuse anyway: misspelt, or of a newer version."""
    return frozenset(pb.allowed_fields) - REFUSED.keys()


def _model_from_pb(pb: catalog_pb2.Model, deployments: Sequence[Deployment]) -> Model:
    points = sorted((_point_from_pb(each) for each in pb.prices), key=lambda point: point.effective_time_s)
    return Model(
        pb=pb,
        model_id=pb.model_id,
        context_length=pb.context_length,
        max_output_length=pb.max_output_length,
        hold_output_tokens=pb.hold_output_tokens or pb.max_output_length,
        template_overhead_tokens=pb.template_overhead_tokens,
        prices=tuple(points),
        deployments=tuple(deployments),
    )


def _point_from_pb(pb: catalog_pb2.PriceVersion) -> PricePoint:
    price = Price(
        prompt=Decimal(pb.prompt),
        completion=Decimal(pb.completion),
        input_cache_read=Decimal(pb.input_cache_read) if pb.input_cache_read else None,
        input_cache_write=Decimal(pb.input_cache_write) if pb.input_cache_write else None,
        image=Decimal(pb.image or 0),
        request=Decimal(pb.request or 0),
    )
    vector = usage_pb2.PriceVector(
        price_version=pb.price_version,
        prompt=pb.prompt,
        completion=pb.completion,
        input_cache_read=pb.input_cache_read,
        input_cache_write=pb.input_cache_write,
        image=pb.image,
        request=pb.request,
    )
    return PricePoint(
        pb.effective_time.seconds + pb.effective_time.nanos / 1e9, price, vector, vector.SerializeToString()
    )
