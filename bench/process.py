"""Processes of the bench: started until they say where they listen, ended, and weighed."""

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

_END_S_MAX = 20.0


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers the load, and the processes that it costs, by role: "edge" and "services"."""

    name: str
    url: str
    key: str
    pids: dict[str, list[int]] = field(default_factory=dict)


def raise_file_limit() -> None:
    """Lets this process and all that it starts hold thousands of sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def python_module(name: str, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """Runs `python -m name`, and yields it with the line of JSON by which it says that it is ready.

    Raises:
        RuntimeError: it ended without such a line.
    """
    command = [sys.executable, "-m", name, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{name} did not start")
            yield process, json.loads(line)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S_MAX)
            process.kill()


def cpu_s(pids: list[int]) -> float:
    """User and system time that these processes, and all below them, have used so far."""
    total = 0.0
    for process in _with_children(pids):
        times = process.cpu_times()
        total += times.children_user + times.children_system
        try:
            total += time.clock_gettime(_cpu_clock(process.pid))
        except OSError:  # not on this system
            total += times.user + times.system
    return total


def _cpu_clock(pid: int) -> int:
    """Linux's clock of what a process has run, to the nanosecond: see clock_getcpuclockid(3). In /proc it is rounded to
    ticks of ten milliseconds, and a round costs the services but seven of these."""
    return (~pid << 3) | 2


def memory_mb(pids: list[int]) -> float:
    """Resident memory of these processes and all below them, now."""
    return sum(process.memory_info().rss for process in _with_children(pids)) / 1e6


def _with_children(pids: list[int]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        process = psutil.Process(pid)
        found |= {member.pid: member for member in (process, *process.children(recursive=True))}
    return list(found.values())
