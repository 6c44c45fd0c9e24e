"""The scripted upstream with a journal: for every answer, by request id, what it reported of its usage.

The journal is a file of JSON lines, each handed to the system before the next answer; the other side of the bill.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness.scripted_upstream import ScriptedUpstream
from tests.harness.upstream_connection import Connection
from tests.harness.upstream_http import RawRequest
from tests.torture.evidence import Reported, tokens_from_usage

_QUESTION = re.compile(rb'"([tk]\d+-\d+) ')  # customers begin with its name


class JournalingUpstream(ScriptedUpstream):
    """Writes a line for each answer when it ends, however it ends."""

    def __init__(self, journal: Path) -> None:
        super().__init__()
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    async def _answer(self, connection: Connection, request: RawRequest, path: str) -> None:
        await_report, begin_s = len(self.record.reported), time.time()
        try:
            await super()._answer(connection, request, path)
        finally:
            # Answers overlap, but nothing else runs between the start of one and its entry into the record.
            report = self.record.reported[await_report]
            self._write(request, report.usage, report.whole, begin_s)

    def _write(self, request: RawRequest, usage: Any, is_whole: bool, begin_s: float) -> None:
        ids = [value for name, value in request.headers if name.lower() == "x-request-id"]
        named = _QUESTION.search(request.body)
        line = json.dumps(
            {
                "request_id": ids[0] if ids else "",
                "usage": usage,
                "whole": is_whole,
                "question": named[1].decode() if named else "",
                "begin_s": begin_s,
                "end_s": time.time(),
            }
        )
        os.write(self._journal, line.encode() + b"\n")


def read_journal(journal: Path) -> list[Reported]:
    """Every answer, in the order of their ends."""
    found = []
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        tokens = tokens_from_usage(entry["usage"])
        found.append(
            Reported(entry["request_id"], tokens, entry["whole"], entry["question"], entry["begin_s"], entry["end_s"])
        )
    return found


@contextmanager
def upstream_process(journal: Path) -> Iterator[str]:
    """Runs it as a process of its own. Its root URL."""
    command = [sys.executable, "-m", "tests.torture.upstream", str(journal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


async def _serve(journal: Path) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with JournalingUpstream(journal) as upstream:
        print(json.dumps({"url": upstream.url}), flush=True)
        await stopping.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The scripted upstream, with a journal of what it reported.")
    parser.add_argument("journal", type=Path)
    asyncio.run(_serve(parser.parse_args().journal))
