"""What is measured, and in which order: every target in every round, so that a drifting machine drifts for all."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import quantiles

from bench.client import Load, Result
from bench.payload import MODEL, MODEL_SLOW
from bench.process import Target, cpu_s, memory_mb

_SETTLE_S = 1.2  # what a target batches (usage, logs) must have left before its CPU is read


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. Counts are per round and target."""

    rounds: int
    requests: int
    streams: int
    latency_s: float
    memory_s: float  # how long the open streams are watched
    open_streams: int = 1000
    request_connections: int = 32
    stream_connections: int = 32  # about 100 streams a second: busy, but no target is saturated
    rate_per_s: float = 200.0


@dataclass(slots=True)
class Measurements:
    """What one target cost: a value for each round, by the name of the measure."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, measure: str, value: float) -> None:
        self.values.setdefault(measure, []).append(value)


def measure(targets: list[Target], direct: Target, plan: Plan, say: Callable[[str], None]) -> dict[str, Measurements]:
    """Runs the whole plan; `direct` is the upstream itself, whose latency is taken off the targets'.

    Raises:
        RuntimeError: an answer was lost or wrong.
    """
    results = {target.name: Measurements() for target in (*targets, direct)}
    for target in targets:
        say(f"warming up {target.name}")
        _load(target, stream=False, connections=plan.request_connections, requests=max(plan.requests // 10, 200))
        _load(target, stream=True, connections=plan.stream_connections, requests=plan.stream_connections)
    for number in range(plan.rounds):
        in_turn = targets if number % 2 == 0 else targets[::-1]  # nobody always comes first
        for target in in_turn:
            say(f"round {number + 1} of {plan.rounds}: {target.name}")
            found = results[target.name]
            _measure_cpu(target, found, "request", plan.requests, plan.request_connections)
            _measure_cpu(target, found, "stream", plan.streams, plan.stream_connections)
        say(f"round {number + 1} of {plan.rounds}: latency")
        own_ms = _measure_latency(direct, results[direct.name], plan, 0.0)
        for target in in_turn:
            _measure_latency(target, results[target.name], plan, own_ms)
    for target in targets:
        say(f"{plan.open_streams} open streams: {target.name}")
        _measure_memory(target, results[target.name], plan)
    return results


def _measure_cpu(target: Target, found: Measurements, kind: str, requests: int, connections: int) -> None:
    before = {role: cpu_s(pids) for role, pids in target.pids.items()}
    result = _load(target, stream=kind == "stream", connections=connections, requests=requests)
    time.sleep(_SETTLE_S)
    for role, pids in target.pids.items():
        found.add(f"{role}_cpu_us_per_{kind}", (cpu_s(pids) - before[role]) / requests * 1e6)
    found.add(f"{kind}s_per_s", requests / result.wall_s)


def _measure_latency(target: Target, found: Measurements, plan: Plan, upstream_ms: float) -> float:
    """The median in milliseconds; `upstream_ms` is the same without anything in between."""
    result = _load(
        target,
        stream=False,
        connections=plan.request_connections,
        requests=int(plan.latency_s * plan.rate_per_s),
        rate_per_s=plan.rate_per_s,
    )
    cuts = quantiles(result.latency_ms, n=100)
    found.add("latency_ms_p50", cuts[49])
    found.add("latency_ms_p99", cuts[98])
    found.add("added_ms_p50", cuts[49] - upstream_ms)
    return cuts[49]


def _measure_memory(target: Target, found: Measurements, plan: Plan) -> None:
    count = plan.open_streams
    load = Load(target.url, target.key, MODEL_SLOW, True, count, count, hold_open=True)
    with _client(load) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        line = client.stdout.readline()
        peaks = dict.fromkeys(target.pids, 0.0)
        deadline = time.monotonic() + plan.memory_s
        while line and time.monotonic() < deadline:
            for role, pids in target.pids.items():
                peaks[role] = max(peaks[role], memory_mb(pids))
            time.sleep(0.1)
        client.stdin.close()
        answer = json.loads(client.stdout.readline() or "{}")
        if line.strip() != "open" or answer.get("failures"):
            raise RuntimeError(f"{target.name} did not hold {count} streams: {line} {str(answer)[:300]}")
    for role, peak in peaks.items():
        found.add(f"{role}_mb_at_open_streams", peak)


def _load(target: Target, *, stream: bool, connections: int, requests: int, rate_per_s: float = 0) -> Result:
    load = Load(target.url, target.key, MODEL, stream, connections, requests, rate_per_s)
    with _client(load) as client:
        text, _ = client.communicate()
    if client.returncode != 0:
        raise RuntimeError(f"the load on {target.name} failed: {load}")
    result = Result(**json.loads(text))
    if result.failures or result.completed != requests:
        raise RuntimeError(f"{target.name} answered {result.completed} of {requests}: {result.failures[:3]}")
    return result


def _client(load: Load) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench.client", json.dumps(asdict(load))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
