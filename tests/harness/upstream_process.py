"""The scripted upstream as a process of its own, for tests whose gateway is one too."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import msgspec

from tests.harness.upstream_answer import Answer
from tests.harness.upstream_record import Record, record_from_json

_DEADLINE_S = 20.0


class UpstreamProcess:
    """The remote control of a running scripted upstream. Calls block; from async tests use `asyncio.to_thread`."""

    def __init__(self, url: str, process: "subprocess.Popen[str]") -> None:
        self.url = url
        self.process = process

    def record(self) -> Record:
        """Everything received and reported so far."""
        return record_from_json(self._call("/_recorded", None))

    async def record_async(self) -> Record:
        """The same without blocking the event loop."""
        return await asyncio.to_thread(self.record)

    def script(self, *answers: Answer) -> None:
        """Queues answers for the next requests."""
        self._call("/_script", msgspec.json.encode(answers))

    def reset(self) -> None:
        """Forgets record and scripts."""
        self._call("/_reset", b"")

    def refuse(self, for_ms: int) -> None:
        """Refuses new connections for a while."""
        self._call(f"/_refuse?for_ms={for_ms}", b"")

    def _call(self, path: str, body: bytes | None) -> bytes:
        with urlopen(Request(self.url + path, data=body), timeout=_DEADLINE_S) as answer:
            data: bytes = answer.read()
        return data


@contextmanager
def upstream_process(*, port: int = 0) -> Iterator[UpstreamProcess]:
    """Starts the process, waits until it listens, and ends it."""
    command = [sys.executable, "-m", "tests.harness.scripted_upstream", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the scripted upstream did not start; its own error is above"
            yield UpstreamProcess(json.loads(line)["url"], process)
        finally:
            process.terminate()
            process.wait(_DEADLINE_S)
