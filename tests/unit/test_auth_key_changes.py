"""auth_svc: the numbered history, and watchers that read it at their own pace."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_svc.key_changes import Gap, History, KeyChange, RecentChanges, is_complete


def changes(first: int, last: int) -> list[KeyChange]:
    return [KeyChange(revision, f"key_{revision}", None) for revision in range(first, last + 1)]


def revisions(found: Sequence[KeyChange] | Gap) -> list[int]:
    assert not isinstance(found, Gap)
    return [change.revision for change in found]


@pytest.mark.parametrize(
    ("after_revision", "history", "expected"),
    [
        (10, History(10, []), True),
        (10, History(12, changes(11, 12)), True),
        (10, History(11, changes(11, 13)), True),  # more was committed between the two reads
        (10, History(13, changes(12, 13)), False),  # 11 was dropped
        (10, History(20, []), False),  # all was dropped
        (10, History(9, []), False),  # the reader is ahead: an older copy of the database came back
    ],
)
def test_a_hole_in_the_history_is_found(after_revision: int, history: History, expected: bool) -> None:
    assert is_complete(after_revision, history) is expected


def test_a_watcher_gets_what_follows_and_no_more_than_it_asked_for() -> None:
    recent = RecentChanges(100, count_max=1000)
    recent.extend(changes(101, 110))
    assert revisions(recent.after(100, 1000)) == list(range(101, 111))
    assert revisions(recent.after(104, 3)) == [105, 106, 107]
    assert revisions(recent.after(110, 1000)) == []


def test_a_watcher_from_before_or_from_elsewhere_is_told() -> None:
    recent = RecentChanges(100, count_max=1000)
    assert recent.after(0, 10) is Gap.TOO_OLD
    assert recent.after(99, 10) is Gap.TOO_OLD
    assert revisions(recent.after(100, 10)) == []
    assert recent.after(101, 10) is Gap.FROM_ELSEWHERE


def test_after_a_restart_every_watcher_is_told() -> None:
    recent = RecentChanges(100, count_max=1000)
    recent.extend(changes(101, 110))
    recent.restart(105)
    assert recent.after(110, 10) is Gap.FROM_ELSEWHERE
    assert recent.after(101, 10) is Gap.TOO_OLD
    recent.extend(changes(106, 106))
    assert revisions(recent.after(105, 10)) == [106]


def test_a_hole_cannot_be_added() -> None:
    with pytest.raises(AssertionError, match="hole"):
        RecentChanges(100, count_max=10).extend(changes(102, 103))


@given(
    st.lists(st.integers(1, 30), max_size=20),
    st.integers(1, 40),
    st.integers(1, 10),
    st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_a_watcher_of_any_pace_misses_nothing_unless_it_is_told(
    batches: list[int], count_max: int, read_max: int, reads: list[bool]
) -> None:
    recent = RecentChanges(0, count_max)
    sent = 0
    for size, read in zip(batches, reads, strict=False):
        recent.extend(changes(recent.revision + 1, recent.revision + size))
        if not read:
            continue
        found = recent.after(sent, read_max)
        if found is Gap.TOO_OLD:
            assert recent.revision - sent > count_max
            sent = recent.revision
        else:
            expected = range(sent + 1, min(sent + read_max, recent.revision) + 1)
            assert revisions(found) == list(expected)
            sent = expected[-1] if expected else sent
