"""auth_svc: what a key allows and when, without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import uuid_utils.compat
from hypothesis import given
from hypothesis import strategies as st

from auth_svc import ids, key_format, keys
from auth_svc.accounts import Account, AccountState, new_account, updated
from auth_svc.keys import Key, KeyTerms, Scope, Verdict
from auth_svc.names import validated_allowed_models, validated_name
from auth_svc.update_mask import validated_paths
from chassis import secret_token
from chassis.faults import InvalidArgument

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TICK = timedelta(microseconds=1)
KEY = Key("key_1", "acct_1", "tg_12345678", KeyTerms("k", (Scope.INFERENCE,)), NOW - timedelta(days=1))
ACTIVE, SUSPENDED = AccountState.ACTIVE, AccountState.SUSPENDED


def expiring(moment: datetime) -> Key:
    return replace(KEY, terms=replace(KEY.terms, expire_time=moment))


@pytest.mark.parametrize(
    ("key", "state", "expected"),
    [
        (KEY, ACTIVE, Verdict.GRANTED),
        (KEY, SUSPENDED, Verdict.SUSPENDED),
        (expiring(NOW + TICK), ACTIVE, Verdict.GRANTED),
        (expiring(NOW), ACTIVE, Verdict.EXPIRED),
        (expiring(NOW - TICK), SUSPENDED, Verdict.EXPIRED),
        (keys.revoked(KEY, NOW), ACTIVE, Verdict.REVOKED),
        (keys.revoked(expiring(NOW), NOW), SUSPENDED, Verdict.REVOKED),
    ],
)
def test_a_key_works_until_it_is_revoked_or_its_time_has_come(key: Key, state: AccountState, expected: Verdict) -> None:
    assert keys.verdict(key, state, NOW) is expected


def test_a_revoked_key_keeps_the_moment_of_its_first_revocation() -> None:
    once = keys.revoked(KEY, NOW)
    assert keys.revoked(once, NOW + TICK) is once


def test_scopes_are_kept_once_each_in_a_fixed_order() -> None:
    terms = keys.validated(replace(KEY.terms, scopes=(Scope.MANAGEMENT, Scope.INFERENCE, Scope.MANAGEMENT)), {})
    assert terms.scopes == (Scope.INFERENCE, Scope.MANAGEMENT)


def test_an_edge_must_forget_a_grant_when_anything_but_the_name_changes() -> None:
    assert not keys.grants_differ(KEY, KEY)
    assert not keys.grants_differ(KEY, keys.updated(KEY, {"name": "another"}, NOW, {}))
    for changes in (
        keys.KeyChanges(scopes=(Scope.MANAGEMENT,)),
        keys.KeyChanges(allowed_models=("a",)),
        keys.KeyChanges(expire_time=NOW + TICK),
        keys.KeyChanges(log_inputs=True),
        keys.KeyChanges(log_outputs=True),
        keys.KeyChanges(log_retention_days=1),
    ):
        assert keys.grants_differ(KEY, keys.updated(KEY, changes, NOW, {})), changes
    assert keys.grants_differ(KEY, keys.revoked(KEY, NOW))


def test_an_expired_key_may_be_renamed_and_revived_but_not_set_to_the_past() -> None:
    expired = expiring(NOW - TICK)
    assert keys.updated(expired, {"name": "old"}, NOW, {}).terms.name == "old"
    assert keys.updated(expired, {"expire_time": None}, NOW, {}).terms.expire_time is None
    with pytest.raises(InvalidArgument, match=r"key\.expire_time"):
        keys.updated(KEY, {"expire_time": NOW}, NOW, {})


def test_an_account_changes_only_in_what_is_given() -> None:
    account = new_account("acct_1", "name", NOW)
    assert account == Account("acct_1", "name", ACTIVE, NOW)
    assert updated(account, {"state": SUSPENDED}) == replace(account, state=SUSPENDED)
    assert updated(account, {"name": "other"}) == replace(account, name="other")


@pytest.mark.parametrize("name", ["x", "x" * 100, "Zoë's key", "日本語", "a b", "🙂"])
def test_names_that_print_are_kept_as_they_are(name: str) -> None:
    assert validated_name("name", name) == name


@pytest.mark.parametrize("name", ["", "x" * 101, " x", "x ", "\u3000x", "a\tb", "a\x7fb", "a\u202eb", "a\u200bb", "\0"])
def test_names_that_mislead_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        validated_name("name", name)


def test_an_allow_list_is_bounded_and_has_no_doubles() -> None:
    longest = tuple(f"{number:0200}" for number in range(1000))
    assert validated_allowed_models("m", longest) == longest
    for wrong in (("a", "a"), ("",), ("x" * 201,), tuple(map(str, range(1001)))):
        with pytest.raises(InvalidArgument):
            validated_allowed_models("m", wrong)


def test_an_update_mask_names_known_fields_and_at_least_one() -> None:
    assert validated_paths(["b", "a", "b"], ("a", "b")) == ("b", "a")
    for wrong in ([], ["c"], ["a", "a.b"], ["*"]):
        with pytest.raises(InvalidArgument, match="update_mask"):
            validated_paths(wrong, ("a", "b"))


@given(st.lists(st.integers(0, 2**128 - 1), min_size=2, max_size=2, unique=True))
def test_ids_sort_as_their_uuids_do_and_are_recognised(numbers: list[int]) -> None:
    first, second = sorted(numbers)
    for make, is_one, is_other in (
        (ids.account_id, ids.is_account_id, ids.is_key_id),
        (ids.key_id, ids.is_key_id, ids.is_account_id),
    ):
        before, after = make(UUID(int=first)), make(UUID(int=second))
        assert before < after
        assert is_one(before)
        assert not is_other(before)
        assert len(before) <= ids.ID_CHARS_MAX


def test_ids_of_one_process_follow_each_other() -> None:
    made = [ids.key_id(uuid_utils.compat.uuid7()) for _ in range(10_000)]
    assert made == sorted(set(made))


@pytest.mark.parametrize(
    "text", ["", "key_", "key_" + "0" * 21, "key_" + "0" * 23, "KEY_" + "0" * 22, "key_" + "é" * 22]
)
def test_what_is_no_id_is_not_looked_up(text: str) -> None:
    assert not ids.is_key_id(text)
    assert not ids.is_account_id(text)


def test_the_stored_hash_depends_on_the_pepper_and_on_the_secret() -> None:
    one, other = secret_token.digest("one"), secret_token.digest("other")
    hashes = {key_format.stored_hash(digest, pepper) for digest in (one, other) for pepper in (b"p" * 32, b"q" * 32)}
    assert len(hashes) == 4
    assert all(len(stored) == 32 for stored in hashes)
    assert one not in hashes
    assert key_format.pepper_check(b"p" * 32) not in hashes


def test_a_drawn_secret_is_in_the_format_and_an_imported_one_must_be() -> None:
    secret = key_format.new_secret(lambda size: bytes(range(size)))
    assert secret_token.well_formed(secret, key_format.SECRET_PREFIX)
    assert key_format.imported_secret(secret) == secret
    with pytest.raises(InvalidArgument) as caught:
        key_format.imported_secret(secret[:-1] + "?")
    assert secret[11:-1] not in str(caught.value)
