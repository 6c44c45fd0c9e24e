"""Upstream deployments in a catalog document."""

import re
from decimal import Decimal
from urllib.parse import urlsplit

from catalog_svc.catalog import (
    ClientGonePolicy,
    CredentialSource,
    Deployment,
    DeploymentKind,
    EstimatePolicy,
    Resource,
)
from catalog_svc.fields import Section
from catalog_svc.refusable_fields import REFUSABLE_FIELDS
from catalog_svc.tree import Scalar

DEPLOYMENT_KEYS = (
    "id",
    "model",
    "kind",
    "base_url",
    "credential",
    "upstream_model",
    "weight",
    "priority",
    "connect_timeout_s",
    "first_byte_timeout_s",
    "idle_timeout_s",
    "commit_after_s",
    "accepts_stream_options",
    "accepts_continuous_usage",
    "n_max",
    "allow",
    "resources",
    "client_gone",
    "output_limit_bounds_reasoning",
    "usage_missing",
    "upstream_failed",
)
CREDENTIAL_KEYS = ("env", "file")

DEPLOYMENT_ALIASES = {
    "url": "base_url",
    "api_base": "base_url",
    "endpoint": "base_url",
    "api_key": "credential",
    "key": "credential",
    "token": "credential",
    "model_id": "model",
    "type": "kind",
    "timeout": "first_byte_timeout_s",
    "allowed_fields": "allow",
}
_CREDENTIAL_ALIASES = {"environment": "env", "environment_variable": "env", "path": "file"}

MAX_TIMEOUT_S = 3600
MAX_CONNECT_TIMEOUT_S = 60
MAX_WEIGHT = 10_000
MAX_PRIORITY = 1_000
MAX_N = 128

DEFAULT_CONNECT_TIMEOUT_S = Decimal(5)
DEFAULT_FIRST_BYTE_TIMEOUT_S = Decimal(600)  # OpenAI's SDKs wait as long; an unstreamed answer comes all at its end
DEFAULT_IDLE_TIMEOUT_S = Decimal(120)
DEFAULT_COMMIT_AFTER_S = Decimal(30)

# Servers that know stream_options.continuous_usage_stats; others ignore or refuse it.
CONTINUOUS_USAGE_KINDS = frozenset({DeploymentKind.VLLM, DeploymentKind.SGLANG})

_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"/[^\x00-\x1f\x7f]*")
_URL_CHARACTERS = re.compile(r"[!-~]+")


def read_deployment(section: Section) -> Deployment:
    """One entry of `deployments`; faults are noted in the section."""
    model_id = section.text("model", None, "the id of a model of this document")
    kind_word = section.choice("kind", None, tuple(DeploymentKind))
    kind = DeploymentKind(kind_word) if kind_word else DeploymentKind.OPENAI
    accepts_continuous_usage = section.boolean("accepts_continuous_usage", kind in CONTINUOUS_USAGE_KINDS)
    client_gone = ClientGonePolicy(section.choice("client_gone", ClientGonePolicy.DRAIN, tuple(ClientGonePolicy)))
    if client_gone is ClientGonePolicy.ABORT and not accepts_continuous_usage:
        section.note(
            "client_gone",
            "abort needs accepts_continuous_usage: true, since what was generated is billed by it; or write drain",
        )
    resources = section.words("resources", tuple(Resource), allowed=tuple(Resource), at_least_one=True)
    return Deployment(
        deployment_id=section.text(
            "id", None, "an id such as gpu-1 (letters, digits and . _ - between them)", chars_max=100, pattern=_ID
        ),
        model_id=model_id,
        kind=kind,
        base_url=_base_url(section),
        credential=_credential(section),
        upstream_model=section.text("upstream_model", "", "the model's name at the upstream"),
        weight=section.integer("weight", 1, 0, MAX_WEIGHT),
        priority=section.integer("priority", 0, 0, MAX_PRIORITY),
        connect_timeout_s=section.seconds("connect_timeout_s", DEFAULT_CONNECT_TIMEOUT_S, MAX_CONNECT_TIMEOUT_S),
        first_byte_timeout_s=section.seconds("first_byte_timeout_s", DEFAULT_FIRST_BYTE_TIMEOUT_S, MAX_TIMEOUT_S),
        idle_timeout_s=section.seconds("idle_timeout_s", DEFAULT_IDLE_TIMEOUT_S, MAX_TIMEOUT_S),
        commit_after_s=section.seconds("commit_after_s", DEFAULT_COMMIT_AFTER_S, MAX_TIMEOUT_S, zero_means="never"),
        accepts_stream_options=section.boolean("accepts_stream_options", True),
        accepts_continuous_usage=accepts_continuous_usage,
        n_max=section.integer("n_max", 1, 1, MAX_N),
        allowed_fields=section.words(
            "allow",
            (),
            allowed=REFUSABLE_FIELDS,
            what='a name that "What `allow` may name" in docs/catalog.md lists, such as previous_response_id',
        ),
        resources=tuple(Resource(word) for word in resources),
        client_gone=client_gone,
        output_limit_bounds_reasoning=section.boolean("output_limit_bounds_reasoning", True),
        usage_missing=_estimates(section, "usage_missing", EstimatePolicy.ESTIMATE),
        upstream_failed=_estimates(section, "upstream_failed", EstimatePolicy.WAIVE),
    )


def _estimates(section: Section, key: str, default: EstimatePolicy) -> EstimatePolicy:
    return EstimatePolicy(section.choice(key, default, tuple(EstimatePolicy)))


def _base_url(section: Section) -> str:
    """The address without a slash at its end. Whatever could carry a secret is refused, and not repeated."""
    url = section.text("base_url", None, "an address such as http://10.0.0.5:8000/v1", chars_max=2000, secret=True)
    if not url:
        return ""
    fault = _base_url_fault(url)
    if fault:
        section.note("base_url", fault)
        return ""
    return url.rstrip("/")


def _base_url_fault(url: str) -> str:
    if not _URL_CHARACTERS.fullmatch(url):
        return "holds spaces or characters beyond ASCII; write them in percent or punycode form"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not an address such as http://10.0.0.5:8000/v1; check host and port"
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    if parts.username is not None or parts.password is not None:
        return "holds a user name or password; name the secret's place instead, as credential: {env: NAME}"
    if "?" in url or "#" in url:
        return "holds a query or fragment; leave it out, and give secrets as credential: {env: NAME}"
    if not parts.hostname or port == 0:
        return "has no host or no usable port; write an address such as http://10.0.0.5:8000/v1"
    for ending in ("/chat/completions", "/responses", "/models"):
        if parts.path.rstrip("/").endswith(ending):
            return f"ends in {ending}, which is added to it; write only what stands before"
    return ""


def _credential(section: Section) -> CredentialSource | None:
    """Where the credential is found. Its value never belongs here, and is never repeated in a message."""
    node = section.node("credential")
    if isinstance(node, Scalar) and not node.is_null:
        section.note(
            "credential",
            "holds the secret itself; put it into an environment variable or a file of the edge, and write "
            "credential: {env: NAME} or credential: {file: /path}",
        )
        return None
    group = section.group("credential", CREDENTIAL_KEYS, _CREDENTIAL_ALIASES)
    if group is None:
        return None
    if ("env" in group) == ("file" in group):
        group.note_here("give exactly one of env (the name of an environment variable) and file (a path)")
    variable = group.text("env", "", "the name of an environment variable", pattern=_VARIABLE, secret=True)
    path = group.text("file", "", "an absolute path of a file on the edge", chars_max=1000, pattern=_PATH, secret=True)
    return CredentialSource(environment_variable=variable, file=path) if variable or path else None
