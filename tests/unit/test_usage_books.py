"""Leases and the ledger as a state machine: many edges, lost answers, repeats, and after each step the books agree."""

from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from pricing import Price
from usage_svc.events import EventRecord, PriceTerms, Record, ReturnRecord, UsageEvent
from usage_svc.intake import Lookups, sift, take_in
from usage_svc.leases import Demand, GrantOutcome, Lease, refusal
from usage_svc.prices import judge
from usage_svc.sessions import SessionId, records_to_skip

TERMS = PriceTerms("v1", "0.000000001", "0")  # a token costs one nano-USD
TODAY = 20_000
ACCOUNTS = ("acme", "bell")
GRACE = 50


def request_id(number: int) -> str:
    milliseconds = f"{TODAY * 86_400_000:012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7000-8000-{number:012x}"


def event(number: int, account_id: str, lease_id: str, cost: int) -> EventRecord:
    fields = dict.fromkeys(UsageEvent._fields, 0) | {
        "request_id": request_id(number),
        "lease_id": lease_id,
        "account_id": account_id,
        "key_id": "k",
        "model_id": "m",
        "deployment_id": "d",
        "resource": 1,
        "admit_time_us": 1,
        "end_time_us": 2,
        "outcome": 1,
        "source": 1,
        "ending": 1,
        "prompt_tokens": cost,
        "price_version": "v1",
        "plausible_tokens_max": 10**6,
        "attempts": b"",
        "streamed": False,
    }
    return EventRecord(UsageEvent(**fields), 1, TERMS)  # type: ignore[arg-type]  # of several types, by name


@dataclass
class SimulatedEdge:
    """What an edge believes: its grants, what it spent and returned, its spool."""

    session_id: SessionId
    account_id: str
    lease_id: str
    seq: int = 0
    granted: int = 0
    spent: int = 0
    returned: int = 0
    spool: list[Record] = field(default_factory=list)
    sealed: bool = False

    @property
    def free(self) -> int:
        return self.granted - self.spent - self.returned


class Books(RuleBasedStateMachine):
    """The service's rules in memory, under every order of calls that a network can make of an edge's."""

    edges = Bundle("edges")

    def __init__(self) -> None:
        super().__init__()
        self.credited: dict[str, int] = defaultdict(int)
        self.available: dict[str, int] = defaultdict(int)
        self.overflow: dict[str, int] = defaultdict(int)
        self.leases: dict[str, Lease] = {}
        self.cursors: dict[SessionId, int] = {}
        self.posted: dict[str, int] = {}
        self.spooled: dict[str, int] = {}
        self.prices: dict[PriceTerms, Price] = dict(judge([TERMS], {}).prices)
        self.edge_count = 0
        self.all_edges: list[SimulatedEdge] = []

    @initialize(target=edges)
    def begin(self) -> MultipleResults[SimulatedEdge]:
        """With funds and two edges of one account, so that a walk need not first find its way there."""
        self.credit("acme", 3_000)
        return multiple(self.new_edge("acme"), self.new_edge("acme"))

    @rule(target=edges, account_id=st.sampled_from(ACCOUNTS))
    def open_edge(self, account_id: str) -> SimulatedEdge:
        return self.new_edge(account_id)

    def new_edge(self, account_id: str) -> SimulatedEdge:
        self.edge_count += 1
        edge = SimulatedEdge(SessionId(f"spool-{self.edge_count}", 1), account_id, f"lease-{self.edge_count}")
        self.cursors[edge.session_id] = 1
        self.all_edges.append(edge)
        return edge

    @rule(account_id=st.sampled_from(ACCOUNTS), amount=st.integers(1, 5_000))
    def credit(self, account_id: str, amount: int) -> None:
        self.credited[account_id] += amount
        self.available[account_id] += amount

    @rule(
        edge=edges,
        want=st.integers(0, 2_000),
        least=st.integers(1, 300),
        repeat=st.booleans(),
        answer_is_lost=st.sampled_from([False, False, False, True]),
    )
    def acquire(self, edge: SimulatedEdge, want: int, least: int, repeat: bool, answer_is_lost: bool) -> None:
        if edge.sealed:
            return
        edge.seq += 1
        demand = Demand(edge.lease_id, edge.account_id, edge.seq, want, least)
        session = edge.session_id
        lease = self.leases.get(edge.lease_id) or Lease(
            edge.lease_id, edge.account_id, session.spool_uuid, session.incarnation
        )
        headroom = self.available[edge.account_id] + GRACE
        before = lease.granted_nanousd
        grant = lease.grant(demand, headroom)
        if grant is None:
            told = refusal(demand, headroom, self.reserved(edge.account_id), before)
            something = self.available[edge.account_id] + self.reserved(edge.account_id) + GRACE > 0
            assert (told.outcome is GrantOutcome.FUNDS_HELD) == something
            return
        assert grant.granted_nanousd == lease.granted_nanousd - before
        assert grant.granted_nanousd >= least
        self.leases[edge.lease_id] = lease
        self.available[edge.account_id] -= grant.granted_nanousd
        if repeat:
            assert lease.grant(demand, self.available[edge.account_id] + GRACE) == grant
        late = lease.grant(Demand(edge.lease_id, edge.account_id, edge.seq - 1, want, least), headroom)
        assert late is not None
        assert late.outcome is not GrantOutcome.GRANTED
        if not answer_is_lost:
            edge.granted = grant.granted_total_nanousd

    @rule(edge=edges, cost=st.integers(0, 500))
    def spool_event(self, edge: SimulatedEdge, cost: int) -> None:
        """A request that is held by what the edge has; it may cost more than that, if only its hold was too small."""
        if edge.sealed or edge.free <= 0:
            return
        record = event(len(self.spooled), edge.account_id, edge.lease_id, cost)
        self.spooled[record.event.request_id] = cost
        edge.spent += cost
        edge.spool.append(record)

    @rule(edge=edges, hold=st.integers(1, 5_000), repeat=st.booleans(), cost=st.integers(0, 9_000))
    def run_the_last_request(self, edge: SimulatedEdge, hold: int, repeat: bool, cost: int) -> None:
        """One request under a lease of its own, granted what is left; its event and its return are spooled later."""
        if edge.sealed:
            return
        account_id, session = edge.account_id, edge.session_id
        open_lasts = [each for each in self.leases.values() if each.account_id == account_id and each.is_last]
        taken = any(not each.closed for each in open_lasts)
        lease_id = f"last-{len(self.leases)}"
        lease = Lease(lease_id, account_id, session.spool_uuid, session.incarnation, is_last=True)
        demand = Demand(lease_id, account_id, 1, hold, hold, last=True)
        headroom = self.available[account_id] + GRACE
        grant = lease.grant(demand, headroom, is_slot_taken=taken)
        if taken or headroom <= 0:
            assert grant is None
            return
        assert grant is not None
        assert grant.granted_nanousd == min(hold, headroom)
        if repeat:
            assert lease.grant(demand, 0, is_slot_taken=False) == grant
        self.leases[lease_id] = lease
        self.available[account_id] -= grant.granted_nanousd
        record = event(len(self.spooled), account_id, lease_id, cost)
        self.spooled[record.event.request_id] = cost
        edge.spool += [record, ReturnRecord(lease_id, 0)]

    @rule(edge=edges, share=st.integers(1, 4))
    def spool_return(self, edge: SimulatedEdge, share: int) -> None:
        if edge.sealed or edge.free <= 0:
            return
        edge.returned += edge.free // share
        edge.spool.append(ReturnRecord(edge.lease_id, edge.returned))

    @rule(edge=edges, rewind=st.integers(0, 5), ahead=st.integers(0, 1), count=st.integers(1, 6))
    def ship(self, edge: SimulatedEdge, rewind: int, ahead: int, count: int) -> None:
        """A batch from before the cursor, at it, or beyond it."""
        first_seq = max(1, self.cursors[edge.session_id] - rewind + ahead)
        self.record(edge, first_seq, edge.spool[first_seq - 1 : first_seq - 1 + count])

    @rule(edge=edges, data=st.data())
    def spool_a_repeat(self, edge: SimulatedEdge, data: st.DataObject) -> None:
        """The same request under another position, of this edge's or another's spool."""
        other = data.draw(st.sampled_from(self.all_edges))
        if not edge.sealed and other.spool:
            edge.spool.append(data.draw(st.sampled_from(other.spool)))

    @rule(edge=edges, truly=st.sampled_from([False, False, False, True]))
    def seal(self, edge: SimulatedEdge, truly: bool) -> None:
        if edge.sealed or not truly:
            return
        self.record(edge, 1, edge.spool)
        edge.sealed = True
        for lease in self.leases.values():
            if not lease.closed and lease.spool_uuid == edge.session_id.spool_uuid:
                self.available[edge.account_id] += lease.release()

    def record(self, edge: SimulatedEdge, first_seq: int, records: list[Record]) -> None:
        cursor = self.cursors[edge.session_id]
        skip = records_to_skip(cursor, first_seq, len(records))
        if skip is None or skip == len(records):
            return
        fresh = records[skip:]
        sifted = sift(fresh, TODAY, 35)
        assert not sifted.reasons
        seen = {request_id: 1 for request_id in sifted.days if request_id in self.posted}
        intake = take_in(edge.session_id, cursor, fresh, sifted, Lookups(self.leases, seen, self.prices, {}))
        self.posted |= zip(intake.posted.field("request_id"), intake.posted.charges_nanousd, strict=True)
        for account_id, change in intake.accounts.items():
            self.available[account_id] += change.available_nanousd
            self.overflow[account_id] += change.overflow_nanousd
        self.cursors[edge.session_id] = cursor + len(fresh)

    def reserved(self, account_id: str) -> int:
        return sum(lease.reserved_nanousd for lease in self.leases.values() if lease.account_id == account_id)

    @invariant()
    def every_lease_gives_at_most_what_it_has(self) -> None:
        for lease in self.leases.values():
            assert 0 <= lease.settled_nanousd + lease.returned_nanousd <= lease.granted_nanousd
            assert min(lease.settled_nanousd, lease.returned_nanousd, lease.overflow_nanousd) >= 0

    @invariant()
    def at_most_one_last_request_of_an_account_is_open(self) -> None:
        for account_id in ACCOUNTS:
            slots = [
                lease
                for lease in self.leases.values()
                if lease.is_last and not lease.closed and lease.account_id == account_id
            ]
            assert len(slots) <= 1

    @invariant()
    def only_labelled_overflow_crosses_the_grace(self) -> None:
        for account_id in ACCOUNTS:
            assert self.available[account_id] >= -GRACE - self.overflow[account_id]

    @invariant()
    def balances_are_credits_minus_charges_by_replay(self) -> None:
        owner = {
            record.event.request_id: record.event.account_id
            for edge in self.all_edges
            for record in edge.spool
            if isinstance(record, EventRecord)
        }
        for account_id in ACCOUNTS:
            charged = sum(cost for request, cost in self.posted.items() if owner[request] == account_id)
            posted = self.available[account_id] + self.reserved(account_id)
            assert posted == self.credited[account_id] - charged

    @invariant()
    def every_charge_is_what_the_request_cost(self) -> None:
        assert all(self.spooled[request] == cost for request, cost in self.posted.items())

    @invariant()
    def what_an_edge_believes_to_have_free_is_reserved_for_it(self) -> None:
        for edge in self.all_edges:
            lease = self.leases.get(edge.lease_id)
            all_here = self.cursors[edge.session_id] == len(edge.spool) + 1
            repeats_none = not any(
                isinstance(record, EventRecord)
                and record.event.lease_id != edge.lease_id
                and not record.event.lease_id.startswith("last-")
                for record in edge.spool
            )
            if lease is not None and all_here and repeats_none and not edge.sealed:
                assert lease.reserved_nanousd >= edge.free

    def teardown(self) -> None:
        """Once every spool is in and sealed, nothing is reserved, and every request was posted exactly once."""
        for edge in self.all_edges:
            self.seal(edge, True)
        self.every_lease_gives_at_most_what_it_has()
        self.only_labelled_overflow_crosses_the_grace()
        self.balances_are_credits_minus_charges_by_replay()
        self.every_charge_is_what_the_request_cost()
        assert all(self.reserved(account_id) == 0 for account_id in ACCOUNTS)
        assert self.posted == self.spooled


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
