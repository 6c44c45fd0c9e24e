"""The services' messages as the command's documents: plain JSON values, stable names, money twice.

Money appears as an integer `x_nanousd` and as an exact decimal `x_usd`; moments as RFC 3339 in UTC;
enums in lower case without their prefix; what is absent as null.
"""

from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pricing.usd import usd_from_nanousd
from protos.auth.v1 import auth_pb2
from protos.catalog.v1 import catalog_pb2
from protos.usage.v1 import usage_pb2
from tollgate.output import Document

_NANOS_PER_MICRO = 1000


def timestamp_from_datetime(moment: datetime) -> Timestamp:
    """For a request."""
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def account_from_pb(account: auth_pb2.Account) -> Document:
    return {
        "account_id": account.account_id,
        "name": account.name,
        "state": _enum(auth_pb2.AccountState.Name(account.state), "ACCOUNT_STATE_"),
        "create_time": _time(account, "create_time"),
    }


def scope_to_pb(scope: str) -> auth_pb2.Scope.ValueType:
    """`inference` as the contract's SCOPE_INFERENCE; callers have checked that it is one."""
    return auth_pb2.Scope.Value(f"SCOPE_{scope.upper()}")


def key_from_pb(key: auth_pb2.Key, now: datetime) -> Document:
    """`state` is revoked, expired or active, by the caller's clock."""
    expired = key.HasField("expire_time") and key.expire_time.ToDatetime(UTC) <= now
    return {
        "key_id": key.key_id,
        "account_id": key.account_id,
        "name": key.name,
        "public_prefix": key.public_prefix,
        "state": "revoked" if key.HasField("revoke_time") else "expired" if expired else "active",
        "scopes": [_enum(auth_pb2.Scope.Name(scope), "SCOPE_") for scope in key.scopes],
        "allowed_models": list(key.allowed_models),
        "expire_time": _time(key, "expire_time"),
        "log_inputs": key.log_inputs,
        "log_outputs": key.log_outputs,
        "log_retention_days": key.log_retention_days or None,
        "limits": _limits(key.limits) if key.HasField("limits") else None,
        "spend_limit": _spend_limit(key.spend_limit) if key.HasField("spend_limit") else None,
        "create_time": _time(key, "create_time"),
        "revoke_time": _time(key, "revoke_time"),
    }


def _limits(limits: auth_pb2.KeyLimits) -> Document:
    return {
        "tier": limits.tier,
        "requests_per_minute": limits.requests_per_minute or None,
        "tokens_per_minute": limits.tokens_per_minute or None,
        "concurrent_requests": limits.concurrent_requests or None,
    }


def _spend_limit(limit: auth_pb2.SpendLimit) -> Document:
    period = _enum(auth_pb2.SpendPeriod.Name(limit.period), "SPEND_PERIOD_")
    return {**_money("limit", limit.limit_nanousd), "period": period}


def balance_from_pb(balance: usage_pb2.Balance) -> Document:
    document: Document = {"account_id": balance.account_id}
    for name in ("available", "posted", "reserved", "grace", "credited", "charged", "refunded"):
        document |= _money(name, getattr(balance, f"{name}_nanousd"))
    return document


def entry_from_pb(entry: usage_pb2.Entry) -> Document:
    return {
        "entry_id": entry.entry_id,
        "kind": _enum(usage_pb2.EntryKind.Name(entry.kind), "ENTRY_KIND_"),
        "debit_account_id": entry.debit_account_id,
        "credit_account_id": entry.credit_account_id,
        **_money("amount", entry.amount_nanousd),
        "request_id": entry.request_id or None,
        "note": entry.note or None,
        "create_time": _time(entry, "create_time"),
    }


def audit_from_pb(response: usage_pb2.AuditLedgerResponse) -> Document:
    document: Document = {"snapshot_time": _time(response, "snapshot_time")}
    for name in ("accounts", "leases", "entries", "requests"):
        document[f"{name}_checked"] = getattr(response, f"{name}_checked")
    document |= {"requests_rated": response.requests_rated, "open_leases": response.open_leases}
    for name in ("credited", "charged", "available", "reserved", "overflow", "overdraft_max"):
        document |= _money(name, getattr(response, f"{name}_nanousd"))
    document["violations"] = [
        {"invariant": each.invariant, "subject": each.subject, "message": each.message} for each in response.violations
    ]
    return document


def session_from_pb(summary: usage_pb2.SessionSummary) -> Document:
    return {
        "spool_uuid": summary.session.spool_uuid,
        "incarnation": summary.session.incarnation,
        "edge_name": summary.edge_name,
        "state": _enum(usage_pb2.SessionState.Name(summary.state), "SESSION_STATE_"),
        "next_seq": summary.next_seq,
        **_money("reserved", summary.reserved_nanousd),
        "create_time": _time(summary, "create_time"),
        "heartbeat_time": _time(summary, "heartbeat_time"),
    }


def usage_row_from_pb(row: usage_pb2.UsageRow) -> Document:
    return {
        "period_start_time": _time(row, "period_start_time"),
        "model_id": row.model_id or None,
        "key_id": row.key_id or None,
        "requests": row.requests,
        "errors": row.errors,
        "tokens": _counts(row.tokens),
        **_money("charged", row.charged_nanousd),
        **_money("refunded", row.refunded_nanousd),
    }


def request_from_pb(request: usage_pb2.RequestSummary) -> Document:
    event = request.event
    return {
        "request_id": event.request_id,
        "account_id": event.account_id,
        "key_id": event.key_id,
        "model_id": event.model_id,
        "deployment_id": event.deployment_id or None,
        "resource": _enum(usage_pb2.Resource.Name(event.resource), "RESOURCE_"),
        "admit_time": _time(event, "admit_time"),
        "end_time": _time(event, "end_time"),
        "status_code": event.status_code,
        "streamed": event.streamed,
        "outcome": _enum(usage_pb2.Outcome.Name(event.outcome), "OUTCOME_"),
        "source": _enum(usage_pb2.UsageSource.Name(event.source), "USAGE_SOURCE_"),
        "ending": _enum(usage_pb2.Ending.Name(event.ending), "ENDING_"),
        "tokens": _counts(event.tokens),
        "price_version": event.price.price_version,
        "first_byte_ms": event.first_byte_ms,
        "duration_ms": event.duration_ms,
        "attempts": [
            {
                "deployment_id": attempt.deployment_id,
                "status_code": attempt.status_code or None,
                "failure": attempt.failure or None,
                "duration_ms": attempt.duration_ms,
            }
            for attempt in event.attempts
        ],
        **_money("hold", event.hold_nanousd),
        **_money("charged", request.charged_nanousd),
        **_money("refunded", request.refunded_nanousd),
        "refunds": [
            {
                **_money("amount", refund.amount_nanousd),
                "reason": refund.reason,
                "create_time": _time(refund, "create_time"),
            }
            for refund in request.refunds
        ],
    }


def model_from_pb(model: catalog_pb2.Model, deployments: list[catalog_pb2.Deployment], now: datetime) -> Document:
    """A model with its deployments; `price` is the one that holds now, null where all lie in the future."""
    prices = [_price(price) for price in model.prices]
    holding = [
        known for price, known in zip(model.prices, prices, strict=True) if price.effective_time.ToDatetime(UTC) <= now
    ]
    return {
        "model_id": model.model_id,
        "name": model.name,
        "description": model.description,
        "owned_by": model.owned_by,
        "hugging_face_id": model.hugging_face_id or None,
        "create_time": _time(model, "create_time"),
        "input_modalities": list(model.input_modalities),
        "output_modalities": list(model.output_modalities),
        "quantization": model.quantization or None,
        "context_length": model.context_length,
        "max_output_length": model.max_output_length,
        "hold_output_tokens": model.hold_output_tokens or None,
        "supported_sampling_parameters": list(model.supported_sampling_parameters),
        "supported_features": list(model.supported_features),
        "datacenters": list(model.datacenters),
        "deprecation_time": _time(model, "deprecation_time"),
        "price": holding[-1] if holding else None,
        "prices": prices,
        "deployments": [_deployment(each) for each in deployments if each.model_id == model.model_id],
    }


def _price(price: catalog_pb2.PriceVersion) -> Document:
    """USD per single unit, as exact decimals."""
    return {
        "price_version": price.price_version,
        "effective_time": _time(price, "effective_time"),
        "prompt": price.prompt,
        "completion": price.completion,
        "input_cache_read": price.input_cache_read or None,
        "input_cache_write": price.input_cache_write or None,
        "image": price.image,
        "request": price.request,
    }


def _deployment(deployment: catalog_pb2.Deployment) -> Document:
    source = deployment.credential.WhichOneof("source")
    return {
        "deployment_id": deployment.deployment_id,
        "kind": _enum(catalog_pb2.DeploymentKind.Name(deployment.kind), "DEPLOYMENT_KIND_"),
        "base_url": deployment.base_url,
        "credential": {source: getattr(deployment.credential, source)} if source else None,
        "upstream_model": deployment.upstream_model or deployment.model_id,
        "weight": deployment.weight,
        "priority": deployment.priority,
        "resources": list(deployment.resources),
        "n_max": deployment.n_max,
        "allowed_fields": list(deployment.allowed_fields),
        "connect_timeout_s": _seconds(deployment.connect_timeout),
        "first_byte_timeout_s": _seconds(deployment.first_byte_timeout),
        "idle_timeout_s": _seconds(deployment.idle_timeout),
        "commit_after_s": _seconds(deployment.commit_after),
    }


def change_from_pb(change: catalog_pb2.Change) -> Document:
    return {
        "kind": _enum(catalog_pb2.ChangeKind.Name(change.kind), "CHANGE_KIND_"),
        "subject": change.subject,
        "field": change.field or None,
        "before": change.before or None,
        "after": change.after or None,
    }


def _counts(tokens: usage_pb2.TokenCounts) -> dict[str, int]:
    return {field.name: getattr(tokens, field.name) for field in tokens.DESCRIPTOR.fields}


def _money(name: str, nanousd: int) -> dict[str, Any]:
    return {f"{name}_nanousd": nanousd, f"{name}_usd": usd_from_nanousd(nanousd)}


def _enum(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos // _NANOS_PER_MICRO / 1_000_000


def _time(message: Message, field: str) -> str | None:
    """RFC 3339 in UTC, to the microsecond where there is one; null where the field is absent."""
    if not message.HasField(field):
        return None
    moment: datetime = getattr(message, field).ToDatetime(UTC)
    return moment.isoformat().replace("+00:00", "Z")
