"""auth_svc: limits of keys and the operator's presets, without a database."""

import pytest

from auth_svc.limits import (
    NO_LIMITS,
    KeyLimits,
    SpendLimit,
    SpendPeriod,
    effective,
    validated_limits,
    validated_spend_limit,
)
from auth_svc.settings import AuthSettings
from chassis.faults import InvalidArgument
from chassis.settings import SettingsInvalid, load

PRESET = KeyLimits("developer", 60, 500_000, 5)
TIERS = {"developer": PRESET}
FIELD = "key.limits"


def test_of_a_preset_only_the_name_is_kept_so_that_its_numbers_can_change() -> None:
    for given in (KeyLimits("developer"), PRESET):
        stored = validated_limits(FIELD, given, TIERS)
        assert stored == KeyLimits("developer")
        assert effective(stored, TIERS) == PRESET
        assert effective(stored, {"developer": KeyLimits("developer", 90)}) == KeyLimits("developer", 90)


def test_numbers_without_a_preset_are_custom_and_none_at_all_are_no_limits() -> None:
    stored = validated_limits(FIELD, KeyLimits(requests_per_minute=3), TIERS)
    assert stored == KeyLimits("custom", 3) == effective(stored, TIERS)
    assert validated_limits(FIELD, KeyLimits("custom"), TIERS) == NO_LIMITS
    assert validated_limits(FIELD, KeyLimits(), TIERS) == NO_LIMITS


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (KeyLimits("gold"), "key.limits.tier"),
        (KeyLimits("developer", 61), "key.limits.tier"),
        (KeyLimits("", -1), "key.limits.requests_per_minute"),
        (KeyLimits("", 0, 10**12 + 1), "key.limits.tokens_per_minute"),
        (KeyLimits("", 0, 0, -5), "key.limits.concurrent_requests"),
    ],
)
def test_limits_that_cannot_be_are_refused_by_name(limits: KeyLimits, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        validated_limits(FIELD, limits, TIERS)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("limit_nanousd", [0, -1, 10**18 + 1])
def test_a_spend_limit_is_at_least_one_nano_usd_and_at_most_a_billion_usd(limit_nanousd: int) -> None:
    with pytest.raises(InvalidArgument, match="limit_nanousd"):
        validated_spend_limit("key.spend_limit", SpendLimit(limit_nanousd, SpendPeriod.DAY))
    assert validated_spend_limit("key.spend_limit", None) is None


def tiers_from(monkeypatch: pytest.MonkeyPatch, value: str | None) -> AuthSettings:
    monkeypatch.setenv("TOLLGATE_AUTH_KEY_PEPPER", "x" * 32)
    monkeypatch.setenv("TOLLGATE_AUTH_DATABASE_URL", "sqlite+aiosqlite:///x")
    if value is not None:
        monkeypatch.setenv("TOLLGATE_AUTH_TIERS", value)
    return load(AuthSettings)


def test_the_presets_that_come_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiers_from(monkeypatch, None).presets() == {
        "developer": PRESET,
        "production": KeyLimits("production", 1000, 10_000_000, 50),
    }


def test_presets_of_the_operators_own(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiers_from(monkeypatch, '{"trial": {"requests_per_minute": 3}}')
    assert settings.presets() == {"trial": KeyLimits("trial", 3)}


@pytest.mark.parametrize(
    "value", ['{"custom": {}}', '{"Gold!": {}}', '{"a": {"requests": 1}}', '{"a": {"tokens_per_minute": -1}}', "[]"]
)
def test_presets_that_cannot_be_are_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with pytest.raises(SettingsInvalid, match="TOLLGATE_AUTH_TIERS"):
        tiers_from(monkeypatch, value)
