"""The only file that knows two shapes of the catalog: our values, and the messages of the contract."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from catalog_svc.catalog import (
    ClientGonePolicy,
    CredentialSource,
    Deployment,
    DeploymentKind,
    EstimatePolicy,
    Model,
    ModelTerms,
    PriceVersion,
    Resource,
    Snapshot,
)
from catalog_svc.diff import Change, ChangeKind
from catalog_svc.prices import price_texts
from pricing import Price
from protos.catalog.v1 import catalog_pb2 as pb

_KIND_TO_PB = {
    DeploymentKind.VLLM: pb.DEPLOYMENT_KIND_VLLM,
    DeploymentKind.SGLANG: pb.DEPLOYMENT_KIND_SGLANG,
    DeploymentKind.LLAMACPP: pb.DEPLOYMENT_KIND_LLAMACPP,
    DeploymentKind.OPENAI: pb.DEPLOYMENT_KIND_OPENAI,
}
_KIND_FROM_PB = {value: kind for kind, value in _KIND_TO_PB.items()}
_CLIENT_GONE_TO_PB = {
    ClientGonePolicy.DRAIN: pb.CLIENT_GONE_POLICY_DRAIN,
    ClientGonePolicy.ABORT: pb.CLIENT_GONE_POLICY_ABORT,
}
_CLIENT_GONE_FROM_PB = {value: policy for policy, value in _CLIENT_GONE_TO_PB.items()}
_ESTIMATE_TO_PB = {
    EstimatePolicy.ESTIMATE: pb.ESTIMATE_POLICY_ESTIMATE,
    EstimatePolicy.WAIVE: pb.ESTIMATE_POLICY_WAIVE,
}
_ESTIMATE_FROM_PB = {value: policy for policy, value in _ESTIMATE_TO_PB.items()}
_CHANGE_KIND_TO_PB = {
    ChangeKind.ADDED: pb.CHANGE_KIND_ADDED,
    ChangeKind.CHANGED: pb.CHANGE_KIND_CHANGED,
    ChangeKind.REMOVED: pb.CHANGE_KIND_REMOVED,
}


def snapshot_to_pb(snapshot: Snapshot) -> pb.Snapshot:
    return pb.Snapshot(
        number=snapshot.number,
        create_time=_moment_to_pb(snapshot.create_time),
        models=[_model_to_pb(model) for model in snapshot.models],
        deployments=[_deployment_to_pb(deployment) for deployment in snapshot.deployments],
    )


def snapshot_from_pb(message: pb.Snapshot) -> Snapshot:
    return Snapshot(
        number=message.number,
        create_time=_moment_from_pb(message.create_time),
        models=tuple(_model_from_pb(model) for model in message.models),
        deployments=tuple(_deployment_from_pb(deployment) for deployment in message.deployments),
    )


def change_to_pb(change: Change) -> pb.Change:
    return pb.Change(
        kind=_CHANGE_KIND_TO_PB[change.kind],
        subject=change.subject,
        field=change.field,
        before=change.before,
        after=change.after,
    )


def _model_to_pb(model: Model) -> pb.Model:
    terms = model.terms
    assert terms.created is not None  # a snapshot's models have it (catalog.Model)
    return pb.Model(
        model_id=terms.model_id,
        name=terms.name,
        description=terms.description,
        owned_by=terms.owned_by,
        hugging_face_id=terms.hugging_face_id,
        create_time=_moment_to_pb(terms.created),
        input_modalities=terms.input_modalities,
        output_modalities=terms.output_modalities,
        quantization=terms.quantization,
        context_length=terms.context_length,
        max_output_length=terms.max_output_length,
        supported_sampling_parameters=terms.sampling_parameters,
        supported_features=terms.features,
        datacenters=terms.datacenters,
        deprecation_time=_day_to_pb(terms.deprecation_date) if terms.deprecation_date is not None else None,
        prices=[_version_to_pb(version) for version in model.prices],
        hold_output_tokens=terms.hold_output_tokens,
        template_overhead_tokens=terms.template_overhead_tokens,
    )


def _model_from_pb(message: pb.Model) -> Model:
    terms = ModelTerms(
        model_id=message.model_id,
        name=message.name,
        description=message.description,
        owned_by=message.owned_by,
        hugging_face_id=message.hugging_face_id,
        created=_moment_from_pb(message.create_time),
        input_modalities=tuple(message.input_modalities),
        output_modalities=tuple(message.output_modalities),
        quantization=message.quantization,
        context_length=message.context_length,
        max_output_length=message.max_output_length,
        sampling_parameters=tuple(message.supported_sampling_parameters),
        features=tuple(message.supported_features),
        datacenters=tuple(message.datacenters),
        deprecation_date=(
            _moment_from_pb(message.deprecation_time).date() if message.HasField("deprecation_time") else None
        ),
        hold_output_tokens=message.hold_output_tokens,
        template_overhead_tokens=message.template_overhead_tokens,
    )
    return Model(terms, tuple(_version_from_pb(version) for version in message.prices))


def _version_to_pb(version: PriceVersion) -> pb.PriceVersion:
    return pb.PriceVersion(
        price_version=version.price_version,
        effective_time=_moment_to_pb(version.effective_time),
        **price_texts(version.price),
    )


def _version_from_pb(message: pb.PriceVersion) -> PriceVersion:
    price = Price(
        prompt=Decimal(message.prompt),
        completion=Decimal(message.completion),
        input_cache_read=Decimal(message.input_cache_read) if message.input_cache_read else None,
        input_cache_write=Decimal(message.input_cache_write) if message.input_cache_write else None,
        image=Decimal(message.image),
        request=Decimal(message.request),
    )
    return PriceVersion(message.price_version, _moment_from_pb(message.effective_time), price)


def _deployment_to_pb(deployment: Deployment) -> pb.Deployment:
    return pb.Deployment(
        deployment_id=deployment.deployment_id,
        model_id=deployment.model_id,
        kind=_KIND_TO_PB[deployment.kind],
        base_url=deployment.base_url,
        credential=_credential_to_pb(deployment.credential) if deployment.credential is not None else None,
        upstream_model=deployment.upstream_model,
        weight=deployment.weight,
        priority=deployment.priority,
        connect_timeout=_seconds_to_pb(deployment.connect_timeout_s),
        first_byte_timeout=_seconds_to_pb(deployment.first_byte_timeout_s),
        idle_timeout=_seconds_to_pb(deployment.idle_timeout_s),
        commit_after=_seconds_to_pb(deployment.commit_after_s),
        accepts_stream_options=deployment.accepts_stream_options,
        accepts_continuous_usage=deployment.accepts_continuous_usage,
        n_max=deployment.n_max,
        allowed_fields=deployment.allowed_fields,
        resources=deployment.resources,
        client_gone=_CLIENT_GONE_TO_PB[deployment.client_gone],
        output_limit_bounds_reasoning=deployment.output_limit_bounds_reasoning,
        usage_missing=_ESTIMATE_TO_PB[deployment.usage_missing],
        upstream_failed=_ESTIMATE_TO_PB[deployment.upstream_failed],
    )


def _deployment_from_pb(message: pb.Deployment) -> Deployment:
    return Deployment(
        deployment_id=message.deployment_id,
        model_id=message.model_id,
        kind=_KIND_FROM_PB[message.kind],
        base_url=message.base_url,
        credential=_credential_from_pb(message.credential) if message.HasField("credential") else None,
        upstream_model=message.upstream_model,
        weight=message.weight,
        priority=message.priority,
        connect_timeout_s=_seconds_from_pb(message.connect_timeout),
        first_byte_timeout_s=_seconds_from_pb(message.first_byte_timeout),
        idle_timeout_s=_seconds_from_pb(message.idle_timeout),
        commit_after_s=_seconds_from_pb(message.commit_after),
        accepts_stream_options=message.accepts_stream_options,
        accepts_continuous_usage=message.accepts_continuous_usage,
        n_max=message.n_max,
        allowed_fields=tuple(message.allowed_fields),
        resources=tuple(Resource(word) for word in message.resources),
        client_gone=_CLIENT_GONE_FROM_PB[message.client_gone],
        output_limit_bounds_reasoning=message.output_limit_bounds_reasoning,
        # Snapshots of versions that had no such fields name no policy.
        usage_missing=_ESTIMATE_FROM_PB.get(message.usage_missing, EstimatePolicy.ESTIMATE),
        upstream_failed=_ESTIMATE_FROM_PB.get(message.upstream_failed, EstimatePolicy.WAIVE),
    )


def _credential_to_pb(source: CredentialSource) -> pb.CredentialSource:
    if source.environment_variable:
        return pb.CredentialSource(environment_variable=source.environment_variable)
    return pb.CredentialSource(file=source.file)


def _credential_from_pb(message: pb.CredentialSource) -> CredentialSource:
    return CredentialSource(environment_variable=message.environment_variable, file=message.file)


def interval_to_pb(interval_s: float) -> Duration:
    interval = Duration()
    interval.FromTimedelta(timedelta(seconds=interval_s))
    return interval


def _seconds_to_pb(seconds: Decimal) -> Duration:
    interval = Duration()
    interval.FromMilliseconds(int(seconds * 1000))  # at most three decimal places (catalog.Deployment)
    return interval


def _seconds_from_pb(message: Duration) -> Decimal:
    return Decimal(message.ToMilliseconds()) / 1000


def _moment_to_pb(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def _moment_from_pb(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)


def _day_to_pb(day: date) -> Timestamp:
    return _moment_to_pb(datetime.combine(day, time(), UTC))
