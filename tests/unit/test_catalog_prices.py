"""catalog_svc: when a price holds, and what the difference is."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_svc.application import apply_document
from catalog_svc.catalog import PriceSpan, PriceVersion, Snapshot
from catalog_svc.document import parse_document
from catalog_svc.prices import BEGINNING, schedule, span_in_force, version_in_force
from pricing import Price

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def price(prompt: int) -> Price:
    return Price(prompt=Decimal(prompt) / 10**6, completion=Decimal(1) / 10**6)


def span(prompt: int, moment: datetime | None = None) -> PriceSpan:
    return PriceSpan(moment, price(prompt))


def told(versions: Sequence[PriceVersion]) -> list[tuple[datetime, int]]:
    return [(version.effective_time, int(version.price.prompt * 10**6)) for version in versions]


def test_a_new_model_has_its_price_from_the_beginning() -> None:
    assert told(schedule("m", (), [span(1)], NOW)) == [(BEGINNING, 1)]


def test_a_new_model_has_the_price_in_force_and_those_to_come() -> None:
    wanted = [span(1), span(2, NOW - DAY), span(3, NOW + DAY)]
    assert told(schedule("m", (), wanted, NOW)) == [(NOW - DAY, 2), (NOW + DAY, 3)]


def test_the_same_again_keeps_every_version_before_and_after_its_moment() -> None:
    wanted = [span(1), span(2, NOW + DAY)]
    known = schedule("m", (), wanted, NOW)
    for later in (NOW, NOW + HOUR, NOW + DAY, NOW + DAY + HOUR):
        assert schedule("m", known, wanted, later) == known
    assert schedule("m", known, wanted, NOW + 3 * DAY) == known[1:]  # the first ended more than a day ago


def test_a_changed_price_holds_from_the_moment_of_application() -> None:
    known = schedule("m", (), [span(1)], NOW)
    after = schedule("m", known, [span(2)], NOW + HOUR)
    assert told(after) == [(BEGINNING, 1), (NOW + HOUR, 2)]
    assert after[0] == known[0]
    assert schedule("m", after, [span(2)], NOW + 2 * HOUR) == after


def test_a_price_is_never_changed_backwards() -> None:
    known = schedule("m", (), [span(1)], NOW)
    after = schedule("m", known, [span(1), span(2, NOW - 30 * DAY)], NOW + HOUR)
    assert told(after) == [(BEGINNING, 1), (NOW + HOUR, 2)]


def test_a_price_to_come_can_be_added_changed_and_withdrawn() -> None:
    known = schedule("m", (), [span(1)], NOW)
    added = schedule("m", known, [span(1), span(2, NOW + DAY)], NOW)
    assert told(added) == [(BEGINNING, 1), (NOW + DAY, 2)]
    changed = schedule("m", added, [span(1), span(3, NOW + DAY)], NOW + HOUR)
    assert told(changed) == [(BEGINNING, 1), (NOW + DAY, 3)]
    assert changed[1].price_version != added[1].price_version
    assert schedule("m", changed, [span(1)], NOW + HOUR) == known


def test_removing_a_price_that_has_ended_changes_nothing() -> None:
    known = schedule("m", (), [span(1), span(2, NOW + HOUR)], NOW)
    assert schedule("m", known, [span(2, NOW + HOUR)], NOW + 2 * HOUR) == known
    assert schedule("m", known, [span(2)], NOW + 2 * HOUR) == known


def test_going_back_to_an_earlier_price_makes_a_version_of_its_own() -> None:
    first = schedule("m", (), [span(1)], NOW)
    second = schedule("m", first, [span(2)], NOW + HOUR)
    third = schedule("m", second, [span(1)], NOW + 2 * HOUR)
    assert told(third) == [(BEGINNING, 1), (NOW + HOUR, 2), (NOW + 2 * HOUR, 1)]
    assert len({version.price_version for version in third}) == 3


def test_names_are_made_of_model_moment_and_vector_and_of_nothing_else() -> None:
    def name(model_id: str, spans: list[PriceSpan]) -> str:
        return schedule(model_id, (), spans, NOW)[0].price_version

    # Names like this one are in usage events for years: another digest would break their proof.
    assert name("m", [span(1)]) == "pv_57a32e6787e716a76182dec543dd5266"
    assert name("m", [span(1)]) == name("m", [PriceSpan(None, Price(Decimal("0.00000100"), Decimal("0.000001")))])
    others = [("m", [span(2)]), ("n", [span(1)]), ("m", [span(1, NOW - DAY)])]
    assert len({name("m", [span(1)]), *(name(*other) for other in others)}) == 4
    with_cache = PriceSpan(None, Price(price(1).prompt, price(1).completion, input_cache_read=price(1).prompt))
    assert name("m", [with_cache]) != name("m", [span(1)])


SPANS = st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 3)), max_size=4, unique_by=lambda each: each[0])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), SPANS, st.integers(0, 3)), min_size=1, max_size=6))
def test_the_past_never_changes_and_the_future_is_what_the_document_says(
    applications: list[tuple[int, list[tuple[int, int]], int]],
) -> None:
    now = NOW
    known: tuple[PriceVersion, ...] = ()
    seen: dict[datetime, str] = {}
    for hours_later, hours_and_prices, first in applications:
        now += HOUR * hours_later + timedelta(microseconds=1)
        wanted = [span(first), *(span(each, now + HOUR * hours) for hours, each in sorted(hours_and_prices))]
        after = schedule("m", known, wanted, now)
        moments = [version.effective_time for version in after]
        assert moments == sorted(set(moments))
        for version in after:  # a name never means two things
            assert seen.setdefault(version.effective_time, version.price_version) == version.price_version or (
                version.effective_time >= now
            )
        if known:
            for back in (timedelta(microseconds=1), 5 * HOUR, 20 * HOUR):
                before_price = version_in_force(known, now - back)
                if back <= HOUR * hours_later and before_price is not None:
                    assert version_in_force(after, now - back) == before_price
        for ahead in range(0, 60, 7):
            holds, stated = version_in_force(after, now + HOUR * ahead), span_in_force(wanted, now + HOUR * ahead)
            assert holds is not None
            assert stated is not None
            assert holds.price == stated.price
        assert schedule("m", after, wanted, now) == after
        known = after


DOCUMENT = """
models:
  - {id: b, context_length: 10, prices: [{per_million: {prompt: 1, completion: 2}}]}
  - {id: a, context_length: 10, prices: [{per_million: {prompt: 1, completion: 2}}]}
deployments:
  - {id: z, model: a, kind: openai, base_url: 'http://h'}
  - {id: y, model: a, kind: openai, base_url: 'http://h'}
"""


def applied(newest: Snapshot | None, text: str, now: datetime) -> tuple[Snapshot, list[tuple[str, ...]]]:
    application = apply_document(newest, parse_document(text, now), now)
    return application.snapshot, [
        (change.kind.name, change.subject, change.field, change.before, change.after) for change in application.changes
    ]


def test_a_snapshot_is_sorted_and_its_changes_are_in_document_order() -> None:
    snapshot, changes = applied(None, DOCUMENT, NOW)
    assert snapshot.number == 1
    assert [model.terms.model_id for model in snapshot.models] == ["a", "b"]
    assert [deployment.deployment_id for deployment in snapshot.deployments] == ["y", "z"]
    brief = "context 10, prompt 1 USD per 1M tokens, completion 2 USD per 1M tokens"
    assert changes == [
        ("ADDED", "model b", "", "", brief),
        ("ADDED", "model a", "", "", brief),
        ("ADDED", "deployment z", "", "", "openai at http://h for a"),
        ("ADDED", "deployment y", "", "", "openai at http://h for a"),
    ]


def test_the_order_of_a_document_is_no_difference() -> None:
    snapshot, _ = applied(None, DOCUMENT, NOW)
    lines = DOCUMENT.strip().splitlines()
    shuffled = "\n".join([lines[0], lines[2], lines[1], lines[3], lines[5], lines[4]])
    assert applied(snapshot, shuffled, NOW + DAY)[1] == []


def test_each_difference_is_told_in_the_words_of_the_document() -> None:
    before, _ = applied(None, DOCUMENT, NOW)
    text = (
        DOCUMENT.replace(
            "id: a, context_length: 10", "id: a, name: A, datacenters: [NO], created: 2026-01-02, context_length: 10"
        )
        .replace(
            "prompt: 1, completion: 2}}]}\ndep",
            "prompt: 1, completion: 2, input_cache_read: 0.5}, per_unit: {request: 0.01}},"
            " {effective: 2026-07-01, per_million: {prompt: 0, completion: 3}}]}\ndep",
        )
        .replace("id: z, model: a", "id: z, credential: {env: Z_KEY}, allow: [priority], commit_after_s: 0.5, model: b")
    )
    after, changes = applied(before, text, NOW + HOUR)
    assert changes == [
        ("CHANGED", "model a", "name", "a", "A"),
        ("CHANGED", "model a", "created", "2026-06-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        ("ADDED", "model a", "datacenters", "", "NO"),
        ("ADDED", "model a", "price.input_cache_read", "", "0.5 USD per 1M tokens"),
        ("CHANGED", "model a", "price.request", "0 USD each", "0.01 USD each"),
        (
            "ADDED",
            "model a",
            "price from 2026-07-01T00:00:00Z",
            "",
            "prompt 0 USD per 1M tokens, completion 3 USD per 1M tokens",
        ),
        ("CHANGED", "deployment z", "model", "a", "b"),
        ("ADDED", "deployment z", "credential", "", "env Z_KEY"),
        ("CHANGED", "deployment z", "commit_after_s", "30", "0.5"),
        ("ADDED", "deployment z", "allow", "", "priority"),
    ]
    _, back = applied(after, DOCUMENT, NOW + 2 * HOUR)
    assert ("REMOVED", "model a", "datacenters", "NO", "") in back
    assert ("REMOVED", "model a", "price.input_cache_read", "0.5 USD per 1M tokens", "") in back
    assert not any(field == "created" for _, _, field, _, _ in back)  # what is not stated stays as it was


def test_a_clock_that_is_behind_does_not_withdraw_a_price() -> None:
    first, _ = applied(None, DOCUMENT, NOW)
    dearer = DOCUMENT.replace("prompt: 1", "prompt: 5")
    second, _ = applied(first, dearer, NOW + HOUR)
    assert applied(second, dearer, NOW + HOUR - timedelta(seconds=3))[1] == []
    third, changes = applied(second, DOCUMENT, NOW)
    assert [field for _, _, field, _, _ in changes] == ["price.prompt"] * 2
    assert third.create_time > second.create_time
