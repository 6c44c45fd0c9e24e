"""usage_svc: random walks of several edges over the real store, audited after every step.

The edges do what networks make of edges: they repeat, overlap, reorder, lose answers, die and come back as the next
incarnation. The walk keeps its own books of what should be charged; at the end both must be the same to the nano.
"""

import random
from dataclasses import dataclass, field

import pytest

from protos.usage.v1 import usage_pb2 as pb
from tests.harness.usage_service import Edge, UsageService, event, new_id, usage_service

ACCOUNTS = ("acme", "bell", "core")
STEPS = 60


@dataclass
class WalkingEdge:
    """One spool: its living session, its leases, and the sessions that it left behind."""

    edge: Edge
    leases: dict[str, str] = field(default_factory=dict)
    granted: dict[str, int] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    returned: dict[str, int] = field(default_factory=dict)
    left_behind: list[Edge] = field(default_factory=list)

    def free(self, account_id: str) -> int:
        return sum(sign * amounts.get(account_id, 0) for sign, amounts in self.signed())

    def signed(self) -> list[tuple[int, dict[str, int]]]:
        return [(1, self.granted), (-1, self.spent), (-1, self.returned)]


class Walk:
    """The steps, and what should be charged."""

    def __init__(self, usage: UsageService, dice: random.Random) -> None:
        self.usage = usage
        self.dice = dice
        self.edges: list[WalkingEdge] = []
        self.sent: list[pb.UsageEvent] = []
        self.costs: dict[str, tuple[str, int]] = {}
        self.credited = dict.fromkeys(ACCOUNTS, 0)

    async def step(self) -> None:
        name = self.dice.choice(["credit", "acquire", "acquire", "work", "work", "ship", "ship", "repeat", "restart"])
        if name == "credit" or not self.edges:
            account_id, amount = self.dice.choice(ACCOUNTS), self.dice.randrange(1, 5_000_000)
            self.credited[account_id] += amount
            await self.usage.credit(account_id, amount)
            if len(self.edges) < 3:
                self.edges.append(WalkingEdge(await self.usage.open_edge()))
            return
        walking = self.dice.choice(self.edges)
        await getattr(self, name)(walking, self.dice.choice(ACCOUNTS))

    async def acquire(self, walking: WalkingEdge, account_id: str) -> None:
        lease_id = walking.leases.setdefault(account_id, new_id())
        least = self.dice.randrange(1, 400_000)
        grant = await walking.edge.acquire(account_id, self.dice.randrange(3_000_000), least, lease_id=lease_id)
        if self.dice.random() < 0.3 and grant.outcome == pb.LEASE_OUTCOME_GRANTED:
            again = await walking.edge.acquire(account_id, 1, least, lease_id=lease_id, seq=grant.seq)
            assert again == grant
        if self.dice.random() < 0.8:  # else the answer is lost, and the next one tells
            walking.granted[account_id] = grant.granted_total_nanousd

    async def work(self, walking: WalkingEdge, account_id: str) -> None:
        """A few requests, some of which cost more than was held, and perhaps a return of what is idle."""
        while walking.free(account_id) > 0 and self.dice.random() < 0.8:
            prompt = self.dice.randrange(400)
            spooled = event(account_id, walking.leases[account_id], prompt=prompt, completion=0)
            self.costs[spooled.request_id] = (account_id, prompt * 1000)
            self.sent.append(spooled)
            walking.spent[account_id] = walking.spent.get(account_id, 0) + prompt * 1000
            walking.edge.spool(spooled)
        if walking.free(account_id) > 0 and self.dice.random() < 0.5:
            walking.returned[account_id] = walking.returned.get(account_id, 0) + walking.free(account_id) // 2
            walking.edge.spool(
                pb.LeaseReturn(lease_id=walking.leases[account_id], returned_total_nanousd=walking.returned[account_id])
            )

    async def ship(self, walking: WalkingEdge, _: str) -> None:
        edge = self.dice.choice([walking.edge, *walking.left_behind])
        first = max(1, edge.next_seq + self.dice.randrange(-3, 2))
        answer = await edge.send(first, edge.records[first - 1 : first - 1 + self.dice.randrange(1, 8)])
        assert answer.next_seq >= edge.next_seq
        assert all(each.outcome == pb.RECORD_OUTCOME_DUPLICATE for each in answer.exceptions)
        edge.next_seq = answer.next_seq

    async def repeat(self, walking: WalkingEdge, _: str) -> None:
        """Some request of any edge's, again, in this one's spool. Its lease may be another's: then it is labelled."""
        if self.sent:
            walking.edge.spool(self.dice.choice(self.sent))

    async def restart(self, walking: WalkingEdge, _: str) -> None:
        old = walking.edge
        new = await self.usage.open_edge(old.session.spool_uuid)
        assert {each.session.incarnation for each in new.undrained} == {
            each.session.incarnation for each in [*walking.left_behind, old]
        }
        walking.left_behind.append(old)
        walking.edge = new
        for amounts in (walking.leases, walking.granted, walking.spent, walking.returned):
            amounts.clear()

    async def finish(self) -> None:
        for walking in self.edges:
            for edge in [*walking.left_behind, walking.edge]:
                await edge.ship()
                released = await edge.seal()
                assert await edge.seal() == released


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_any_walk_the_books_are_what_the_edges_spent(database_url: str, seed: int) -> None:
    async with usage_service(database_url) as usage:
        walk = Walk(usage, random.Random(seed))
        for _ in range(STEPS):
            await walk.step()
            await usage.audit()
        await walk.finish()
        await usage.audit()
        for account_id in ACCOUNTS:
            cost = sum(amount for owner, amount in walk.costs.values() if owner == account_id)
            balance = await usage.balance(account_id)
            assert balance.charged_nanousd == cost
            assert balance.posted_nanousd == balance.available_nanousd == walk.credited[account_id] - cost
            assert balance.reserved_nanousd == 0
            (sums,) = await usage.usage(account_id)
            assert sums.charged_nanousd == cost
