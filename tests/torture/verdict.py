"""Compares the three witnesses, request by request and in total. Pure: directed tests and the torture run share it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from protos.usage.v1 import usage_pb2 as pb
from tests.torture.evidence import ONCE, Ending, Event, Evidence, Reported, Sighting, Tokens

# What the torture's only model costs, in nano-USD per token (see plant.CATALOG and tests/harness/usage_service.PRICE).
PROMPT_NANOUSD, COMPLETION_NANOUSD, CACHED_NANOUSD = 1000, 2000, 500
_REQUEST_S_MAX = 90.0  # how long before its edge was killed a request that is lost with it can have been admitted
_UNSYNCED_S_MAX = 2.0  # how long after its upstream's answer a request can have been without a sync
_OUTCOMES: dict[int, str] = {number: name.removeprefix("OUTCOME_").lower() for name, number in pb.Outcome.items()}
LOST_WITH_POWER = "lost with its edge's power"
_CHARGED = frozenset({pb.OUTCOME_MEASURED, pb.OUTCOME_ESTIMATED})


@dataclass(slots=True)
class Verdict:
    """What a run showed. It has passed if there are no violations."""

    violations: list[str] = field(default_factory=list)
    requests: int = 0  # with an id: seen by the upstream, a client or the ledger
    endings: "Counter[str]" = field(default_factory=Counter)  # as clients saw them
    outcomes: "Counter[str]" = field(default_factory=Counter)  # as the ledger has them
    reported_tokens: int = 0
    billed_tokens: int = 0
    lost_tokens: int = 0  # reported for requests that are labelled edge_lost, or lost with the power of their edge
    waived_tokens: int = 0
    estimated_tokens: int = 0  # billed by estimate
    # Every request behind the numbers above, if it had tokens: by label, with those billed and those reported.
    labelled: dict[str, list[tuple[str, int, int]]] = field(default_factory=lambda: defaultdict(list))
    overdraft_nanousd: int = 0  # the largest, beyond grace
    duplicates: int = 0  # charges beyond the first of a request

    @property
    def difference_tokens(self) -> int:
        """What no label explains."""
        explained = self.lost_tokens + self.waived_tokens - self.estimated_tokens
        return self.reported_tokens - self.billed_tokens - explained


def judge(evidence: Evidence) -> Verdict:
    """Every rule, for every request and account."""
    verdict = Verdict(violations=list(evidence.complaints))
    books = evidence.books
    reports: dict[str, list[Reported]] = defaultdict(list)
    for report in evidence.reported:
        reports[report.request_id].append(report)
    sightings = {each.request_id: each for each in evidence.sightings if each.request_id}
    events: dict[str, Event] = {}
    for event in books.events:
        if event.request_id in events:
            verdict.violations.append(f"{event.request_id} has two outcomes in the ledger")
        events[event.request_id] = event
    verdict.endings.update(each.ending.value for each in evidence.sightings)
    ids = sorted(reports.keys() | sightings.keys() | events.keys())
    verdict.requests = len(ids)
    for request_id in ids:
        _judge_request(verdict, evidence, request_id, reports[request_id], sightings.get(request_id), events)
    _judge_keys(verdict, evidence, events)
    _judge_entries(verdict, evidence, events)
    _judge_accounts(verdict, evidence, events)
    verdict.violations += [
        f"{sighting.request_id}: its answer broke off since {drain.edge} was asked to end"
        for drain in evidence.drains
        for sighting in evidence.sightings
        if sighting.edge == drain.edge
        and sighting.start_s < drain.from_s < sighting.end_s <= drain.until_s
        and sighting.ending is Ending.BROKEN
        and not sighting.may_break
    ]
    verdict.violations += [f"a record was set aside: {reason}" for reason in books.quarantined]
    verdict.violations += [f"session {session} was never sealed" for session in books.unsealed_sessions]
    if verdict.difference_tokens:
        verdict.violations.append(f"{verdict.difference_tokens} reported tokens are neither billed nor labelled")
    return verdict


def _judge_request(
    verdict: Verdict,
    evidence: Evidence,
    request_id: str,
    reports: list[Reported],
    sighting: Sighting | None,
    events: Mapping[str, Event],
) -> None:
    told = [report.tokens for report in reports if report.tokens is not None]
    reported = told[-1] if told else None
    verdict.reported_tokens += reported.total if reported is not None else 0
    event = events.get(request_id)
    is_completed = sighting is not None and sighting.ending is Ending.COMPLETED
    if len(told) > 1:
        verdict.violations.append(f"{request_id}: {len(told)} upstream attempts reported usage, and one can be billed")
    if event is None:
        if reports and not is_completed and _power_was_cut(evidence, reports, sighting):
            verdict.outcomes[LOST_WITH_POWER] += 1
            verdict.lost_tokens += reported.total if reported is not None else 0
            if reported is not None:
                verdict.labelled[LOST_WITH_POWER].append((request_id, 0, reported.total))
        elif reports:
            verdict.violations.append(f"{request_id} was asked of the upstream and has no outcome in the ledger")
        if is_completed:
            verdict.violations.append(f"{request_id}: its client has the whole answer, and the ledger knows nothing")
        return
    name = _OUTCOMES[event.outcome]
    verdict.outcomes[name] += 1
    if event.outcome in _CHARGED:
        verdict.billed_tokens += event.tokens.total
    wrong = _against_outcome(verdict, evidence, event, reported, is_completed)
    if sighting is not None and sighting.tokens is not None and event.outcome == pb.OUTCOME_ESTIMATED:
        wrong.append(f"its client was told {sighting.tokens.total} tokens, and an estimate is billed")
    if sighting is not None and sighting.account_id != event.account_id:
        wrong.append(f"it was {sighting.account_id}'s and is {event.account_id}'s in the ledger")
    if sighting is not None and sighting.tokens is not None and event.outcome == pb.OUTCOME_MEASURED:
        seen, billed = sighting.tokens, event.tokens
        if (seen.prompt, seen.completion) != (billed.prompt, billed.completion):
            wrong.append(f"its client was told {seen.total} tokens, and {billed.total} are billed")
    verdict.violations += [f"{request_id} ({name}): {each}" for each in wrong]


def _against_outcome(
    verdict: Verdict, evidence: Evidence, event: Event, reported: Tokens | None, is_completed: bool
) -> list[str]:
    """What is wrong with one request's outcome; labels what is right and yet not billed by a report."""
    wrong: list[str] = []
    name = _OUTCOMES[event.outcome]
    told = reported.total if reported is not None else 0
    if event.outcome == pb.OUTCOME_MEASURED:
        if reported is None:
            wrong.append(f"{event.tokens.total} tokens are billed that the upstream never reported")
        elif event.tokens != reported:
            wrong.append(f"the upstream reported {reported}, and {event.tokens} are billed")
        if event.charged_nanousd != cost_nanousd(event.tokens):
            wrong.append(f"it was charged {event.charged_nanousd} nano-USD, not {cost_nanousd(event.tokens)}")
        return wrong
    if event.outcome == pb.OUTCOME_ESTIMATED:
        verdict.estimated_tokens += event.tokens.total
        verdict.labelled[name].append((event.request_id, event.tokens.total, told))
        if reported is not None:
            wrong.append(f"the upstream reported {reported}, and it was estimated")
        if event.charged_nanousd != min(cost_nanousd(event.tokens), event.hold_nanousd):
            wrong.append(f"an estimate of {event.tokens} within {event.hold_nanousd} costs {event.charged_nanousd}")
        return wrong
    if event.charged_nanousd:
        wrong.append(f"it was charged {event.charged_nanousd} nano-USD")
    if event.outcome == pb.OUTCOME_EDGE_LOST:
        verdict.lost_tokens += told
        if told:
            verdict.labelled[name].append((event.request_id, 0, told))
        if is_completed:
            wrong.append("its client has the whole answer")
        if not _was_killed(evidence, event):
            wrong.append("no edge was killed that could have lost it")
    elif event.outcome == pb.OUTCOME_WAIVED:
        verdict.waived_tokens += told
        if told:
            verdict.labelled[name].append((event.request_id, 0, told))
        if reported is not None:
            wrong.append(f"the upstream reported {reported}")
    else:  # none
        if reported is not None:
            wrong.append(f"the upstream reported {reported}")
        if is_completed:
            wrong.append("its client has the whole answer")
    return wrong


def cost_nanousd(tokens: Tokens) -> int:
    """What the torture's model costs."""
    cached = min(tokens.cached, tokens.prompt)
    return (tokens.prompt - cached) * PROMPT_NANOUSD + cached * CACHED_NANOUSD + tokens.completion * COMPLETION_NANOUSD


def _was_killed(evidence: Evidence, event: Event) -> bool:
    return any(
        kill.spool_uuid == event.spool_uuid and event.admit_s - 1 <= kill.at_s <= event.admit_s + _REQUEST_S_MAX
        for kill in evidence.kills
    )


def _power_was_cut(evidence: Evidence, reports: Sequence[Reported], sighting: Sighting | None) -> bool:
    """Whether its edge lost its disk's newest bytes while this was under way: that a request was admitted is written
    before it is forwarded, and synced with what comes after."""
    begin_s, end_s = min(report.begin_s for report in reports), max(report.end_s for report in reports)
    return any(
        kill.is_power_cut
        and begin_s - 1 <= kill.at_s <= end_s + _UNSYNCED_S_MAX
        and (sighting is None or sighting.edge == kill.edge)
        for kill in evidence.kills
    )


def _judge_keys(verdict: Verdict, evidence: Evidence, events: Mapping[str, Event]) -> None:
    """However often a question is asked under its idempotency key, it is charged once."""
    asked: dict[str, set[str]] = defaultdict(set)
    for report in evidence.reported:
        if report.question.startswith(ONCE):
            asked[report.question].add(report.request_id)
    for question, request_ids in asked.items():
        charged = sorted(each for each in request_ids if each in events and events[each].charged_nanousd)
        if len(charged) > 1:
            verdict.violations.append(f"question {question}, asked under one idempotency key, was charged as {charged}")


def _judge_entries(verdict: Verdict, evidence: Evidence, events: Mapping[str, Event]) -> None:
    """I5, and the half of I4 that concerns charges: each charged request has one entry, of its amount."""
    charges: dict[str, list[int]] = defaultdict(list)
    for entry in evidence.books.entries:
        if entry.kind == pb.ENTRY_KIND_CHARGE:
            charges[entry.request_id].append(entry.amount_nanousd)
    for request_id, amounts in charges.items():
        if len(amounts) > 1:
            verdict.duplicates += len(amounts) - 1
            verdict.violations.append(f"{request_id} was charged {len(amounts)} times")
        event = events.get(request_id)
        if event is None or event.charged_nanousd != amounts[0]:
            verdict.violations.append(
                f"{request_id} was charged {amounts[0]} nano-USD, which its usage row does not say"
            )
    for request_id, event in events.items():
        if event.charged_nanousd and request_id not in charges:
            verdict.violations.append(f"{request_id} costs {event.charged_nanousd} nano-USD, and no entry says so")


def _judge_accounts(verdict: Verdict, evidence: Evidence, events: Mapping[str, Event]) -> None:
    """I1 and I4: the replay of all entries, what is reserved, and how far below its grace each account is."""
    books = evidence.books
    replayed: dict[str, int] = defaultdict(int)
    for entry in books.entries:
        replayed[entry.debit_account_id] -= entry.amount_nanousd
        replayed[entry.credit_account_id] += entry.amount_nanousd
    reserved: dict[str, int] = defaultdict(int)
    for lease in books.leases:
        reserved[lease.account_id] += lease.reserved_nanousd
        if min(lease.settled_nanousd, lease.returned_nanousd, lease.reserved_nanousd) < 0:
            verdict.violations.append(f"lease {lease.lease_id} gave more than it had")
        if lease.closed and lease.reserved_nanousd:
            verdict.violations.append(
                f"lease {lease.lease_id} is closed and reserves {lease.reserved_nanousd} nano-USD"
            )
    under_held: dict[str, list[int]] = defaultdict(list)
    for event in events.values():
        if event.charged_nanousd > event.hold_nanousd:
            under_held[event.account_id].append(event.charged_nanousd - event.hold_nanousd)
    for account in books.accounts:
        name = account.account_id
        posted = account.available_nanousd + reserved[name]
        if posted != replayed[name]:
            verdict.violations.append(f"{name}: available and reserved are {posted}, the entries say {replayed[name]}")
        if account.available_nanousd < -account.grace_nanousd - account.overflow_nanousd:
            verdict.violations.append(f"{name} is beyond its grace without a label")
        if account.overflow_nanousd > sum(under_held[name]):
            verdict.violations.append(
                f"{name}: {account.overflow_nanousd} nano-USD went beyond what was reserved, and requests that cost "
                f"more than their holds explain {sum(under_held[name])}"
            )
        overdraft = -posted - account.grace_nanousd
        verdict.overdraft_nanousd = max(verdict.overdraft_nanousd, overdraft)
        if overdraft > max(under_held[name], default=0):
            verdict.violations.append(f"{name} is {overdraft} nano-USD beyond its grace, more than one request's worth")
        if name in evidence.credits_nanousd and account.credited_nanousd != evidence.credits_nanousd[name]:
            verdict.violations.append(
                f"{name} was credited {account.credited_nanousd} nano-USD, not {evidence.credits_nanousd[name]}"
            )
        if reserved[name]:
            verdict.violations.append(f"{name} still has {reserved[name]} nano-USD reserved, with all quiet")
