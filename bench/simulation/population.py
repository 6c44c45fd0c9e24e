"""Who asks, how often, and with how much money. Pure, by a seed."""

import bisect
import itertools
import math
import random
from dataclasses import dataclass

from tests.harness.usage_service import USD

ZIPF = 1.0
# As a chat with a model of 1 and 2 USD per million: a hold is about fifty times what the request will cost.
_PROMPT_NANOUSD, _COMPLETION_NANOUSD = 1_000, 2_000
_MAX_OUTPUT_TOKENS = 8_192
_BYTES_PER_TOKEN = 4
_DURATION_S_MEDIAN, _DURATION_SIGMA = 2.0, 0.8


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Its bill is exact when it ends."""

    account: int  # 0 is the busiest
    hold_nanousd: int
    prompt_tokens: int
    completion_tokens: int
    duration_s: float

    @property
    def charge_nanousd(self) -> int:
        return self.prompt_tokens * _PROMPT_NANOUSD + self.completion_tokens * _COMPLETION_NANOUSD


class Population:
    """Accounts by Zipf's law. Of each twenty one is poor: it has funds for a few holds only."""

    def __init__(self, seed: int, accounts: int, edges: int, requests_per_s: float) -> None:
        self.dice = random.Random(f"population {seed}")
        weights = [1 / (rank + 1) ** ZIPF for rank in range(accounts)]
        total = sum(weights)
        self._cumulative = list(itertools.accumulate(weights))
        self._edges = edges
        self.rates = [requests_per_s * weight / total for weight in weights]
        # A balancer that hashes the key, and spreads a key over more edges where one has too little for it.
        fair = requests_per_s / edges
        self._homes = [
            self.dice.sample(range(edges), min(edges, max(1, math.ceil(rate / (fair / 2))))) for rate in self.rates
        ]
        self.credits_nanousd = [
            round(self.dice.uniform(0.1, 0.5) * USD) if rank % 20 == 19 else round((1 + rate) * 100 * USD)
            for rank, rate in enumerate(self.rates)
        ]

    def request(self) -> Request:
        """The next one."""
        dice = self.dice
        account = bisect.bisect(self._cumulative, dice.random() * self._cumulative[-1])
        prompt = round(dice.lognormvariate(math.log(300), 0.8))
        completion = min(_MAX_OUTPUT_TOKENS, round(dice.lognormvariate(math.log(120), 0.9)))
        hold = prompt * _BYTES_PER_TOKEN * _PROMPT_NANOUSD + _MAX_OUTPUT_TOKENS * _COMPLETION_NANOUSD
        duration_s = dice.lognormvariate(math.log(_DURATION_S_MEDIAN), _DURATION_SIGMA)
        return Request(account, hold, prompt, completion, duration_s)

    def edge_of(self, account: int, *, with_affinity: bool) -> int:
        """Where the balancer sends it."""
        return self.dice.choice(self._homes[account]) if with_affinity else self.dice.randrange(self._edges)
