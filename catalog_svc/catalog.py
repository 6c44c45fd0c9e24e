"""What a catalog is made of, as values: models with their prices, and the deployments that serve them."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from pricing import Price


class DeploymentKind(StrEnum):
    """Which server software an upstream is."""

    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    OPENAI = "openai"


class ClientGonePolicy(StrEnum):
    """What to do with the upstream when a streaming client goes away."""

    DRAIN = "drain"
    ABORT = "abort"


class EstimatePolicy(StrEnum):
    """What an answer costs whose usage nobody reported."""

    ESTIMATE = "estimate"
    WAIVE = "waive"


class Resource(StrEnum):
    """A public resource that a deployment can serve."""

    CHAT_COMPLETIONS = "chat_completions"
    RESPONSES = "responses"


@dataclass(frozen=True, slots=True)
class PriceSpan:
    """A price as a document states it: from `effective_time`, or from the beginning where that is None."""

    effective_time: datetime | None
    price: Price


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """A price under its permanent name, from a moment on."""

    price_version: str
    effective_time: datetime
    price: Price


@dataclass(frozen=True, slots=True)
class ModelTerms:
    """Everything that a document says of a model but its prices. Moments and days are in UTC."""

    model_id: str
    name: str
    description: str
    owned_by: str
    hugging_face_id: str
    created: datetime | None
    input_modalities: tuple[str, ...]
    output_modalities: tuple[str, ...]
    quantization: str
    context_length: int
    max_output_length: int
    sampling_parameters: tuple[str, ...]
    features: tuple[str, ...]
    datacenters: tuple[str, ...]
    deprecation_date: date | None
    hold_output_tokens: int
    template_overhead_tokens: int


@dataclass(frozen=True, slots=True)
class DocumentModel:
    """A model in a document; `spans` in the order of time."""

    terms: ModelTerms
    spans: tuple[PriceSpan, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A model in a snapshot: `terms.created` is never None; `prices` in the order of time."""

    terms: ModelTerms
    prices: tuple[PriceVersion, ...]


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """Where the edge finds a credential: exactly one of the two is not empty."""

    environment_variable: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One upstream that serves one model. Times are seconds with at most three decimal places."""

    deployment_id: str
    model_id: str
    kind: DeploymentKind
    base_url: str
    credential: CredentialSource | None
    upstream_model: str
    weight: int
    priority: int
    connect_timeout_s: Decimal
    first_byte_timeout_s: Decimal
    idle_timeout_s: Decimal
    commit_after_s: Decimal
    accepts_stream_options: bool
    accepts_continuous_usage: bool
    n_max: int
    allowed_fields: tuple[str, ...]
    resources: tuple[Resource, ...]
    client_gone: ClientGonePolicy
    output_limit_bounds_reasoning: bool
    usage_missing: EstimatePolicy
    upstream_failed: EstimatePolicy


@dataclass(frozen=True, slots=True)
class Document:
    """What an operator wants the catalog to be, in the order in which it was written."""

    models: tuple[DocumentModel, ...]
    deployments: tuple[Deployment, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalog at one number: both lists sorted by id."""

    number: int
    create_time: datetime
    models: tuple[Model, ...]
    deployments: tuple[Deployment, ...]
