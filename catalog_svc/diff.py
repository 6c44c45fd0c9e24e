"""What a document changes, for people who are about to apply it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, auto

from catalog_svc.catalog import CredentialSource, Deployment, Model, ModelTerms
from catalog_svc.fields import plain
from catalog_svc.prices import PER_MILLION, price_texts, version_in_force, versions_after
from pricing import Price


class ChangeKind(Enum):
    """How something differs."""

    ADDED = auto()
    CHANGED = auto()
    REMOVED = auto()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `field` is empty where the whole subject comes or goes; values are empty where there is none."""

    kind: ChangeKind
    subject: str
    field: str = ""
    before: str = ""
    after: str = ""


def model_changes(old: Sequence[Model], new: Sequence[Model], now: datetime) -> list[Change]:
    """Differences between models in the order of `new`, then what is gone. Ended prices are not looked at."""
    before = {model.terms.model_id: model for model in old}
    changes: list[Change] = []
    for model in new:
        subject = f"model {model.terms.model_id}"
        known = before.pop(model.terms.model_id, None)
        if known is None:
            changes.append(Change(ChangeKind.ADDED, subject, after=_model_in_brief(model, now)))
            continue
        changes += _field_changes(subject, _terms_texts(known.terms), _terms_texts(model.terms))
        changes += _price_changes(subject, known, model, now)
    changes += [
        Change(ChangeKind.REMOVED, f"model {model_id}", before=_model_in_brief(model, now))
        for model_id, model in before.items()
    ]
    return changes


def deployment_changes(old: Sequence[Deployment], new: Sequence[Deployment]) -> list[Change]:
    """Differences between deployments in the order of `new`, then what is gone."""
    before = {deployment.deployment_id: deployment for deployment in old}
    changes: list[Change] = []
    for deployment in new:
        subject = f"deployment {deployment.deployment_id}"
        known = before.pop(deployment.deployment_id, None)
        if known is None:
            changes.append(Change(ChangeKind.ADDED, subject, after=_deployment_in_brief(deployment)))
        else:
            changes += _field_changes(subject, _deployment_texts(known), _deployment_texts(deployment))
    changes += [
        Change(ChangeKind.REMOVED, f"deployment {deployment_id}", before=_deployment_in_brief(deployment))
        for deployment_id, deployment in before.items()
    ]
    return changes


def _field_changes(subject: str, before: dict[str, str], after: dict[str, str]) -> list[Change]:
    return [
        Change(_kind(before[field], after[field]), subject, field, before[field], after[field])
        for field in after
        if before[field] != after[field]
    ]


def _kind(before: str, after: str) -> ChangeKind:
    if not before:
        return ChangeKind.ADDED
    return ChangeKind.CHANGED if after else ChangeKind.REMOVED


def _price_changes(subject: str, old: Model, new: Model, now: datetime) -> list[Change]:
    """The price from now on, dimension by dimension; then each future price as a whole."""
    old_version, new_version = version_in_force(old.prices, now), version_in_force(new.prices, now)
    assert old_version is not None  # a snapshot's models have a price in force, and ours is not older than it
    assert new_version is not None
    changes = _field_changes(subject, _dimension_texts(old_version.price), _dimension_texts(new_version.price))
    before = {version.effective_time: version for version in versions_after(old.prices, now)}
    after = {version.effective_time: version for version in versions_after(new.prices, now)}
    for moment in sorted(before.keys() | after.keys()):
        texts = [price_in_brief(side[moment].price) if moment in side else "" for side in (before, after)]
        if texts[0] != texts[1]:
            changes.append(Change(_kind(*texts), subject, f"price from {_moment_text(moment)}", *texts))
    return changes


def price_in_brief(price: Price) -> str:
    """A price in one line, in the units in which people write it."""
    return ", ".join(
        f"{name.removeprefix('price.')} {text}" for name, text in _dimension_texts(price).items() if not _is_zero(text)
    )


def _is_zero(text: str) -> bool:
    # Free prompts are worth saying; that an image costs nothing extra is the rule.
    return text == "" or text.startswith("0 USD each")


def _dimension_texts(price: Price) -> dict[str, str]:
    return {
        f"price.{name}": ""
        if not text
        else (f"{plain(Decimal(text) * 10**6)} USD per 1M tokens" if name in PER_MILLION else f"{text} USD each")
        for name, text in price_texts(price).items()
    }


def _terms_texts(terms: ModelTerms) -> dict[str, str]:
    return {
        name: _text(getattr(terms, name)) for name in terms.__dataclass_fields__ if name not in ("model_id", "prices")
    }


# Where a deployment's field has another name than its key in a document.
_DOCUMENT_KEYS = {"model_id": "model", "allowed_fields": "allow"}


def _deployment_texts(deployment: Deployment) -> dict[str, str]:
    return {
        _DOCUMENT_KEYS.get(name, name): _text(getattr(deployment, name))
        for name in deployment.__dataclass_fields__
        if name != "deployment_id"
    }


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, datetime):
        return _moment_text(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, CredentialSource):
        return f"env {value.environment_variable}" if value.environment_variable else f"file {value.file}"
    return str(value)


def _moment_text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def _model_in_brief(model: Model, now: datetime) -> str:
    version = version_in_force(model.prices, now)
    price = price_in_brief(version.price) if version is not None else ""
    return f"context {model.terms.context_length}, {price}"


def _deployment_in_brief(deployment: Deployment) -> str:
    return f"{deployment.kind} at {deployment.base_url} for {deployment.model_id}"
