"""The load: customers that stream, wait, cancel and retry, over all edges, as long as they are let."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import openai

from tests.harness.raw_client import CHAT, RESPONSES, request_bytes
from tests.torture.evidence import ONCE, Ending, Sighting, Tokens, tokens_from_usage
from tests.torture.faults import EDGES
from tests.torture.plant import MODEL, Plant

_RETRIES_MAX = 2
_MAX_TOKENS = 64

# How long customers wait for an answer that does not come before they go away.
_PATIENCE_S = (4.0, 20.0)

# What the upstream is asked to do, and how often. `{events}` and `{gap}` are drawn for each request. An upstream that
# dies is told to close, not to reset, where it has reported usage before: a reset may overtake what was reported.
_SCRIPTS = (
    (30, "events={events} gap_ms={gap}"),
    (10, "mode=usage_last_content events={events} gap_ms={gap}"),
    (10, "mode=usage_cumulative events={events} gap_ms={gap}"),
    (5, "mode=usage_null_everywhere events={events} gap_ms={gap} cached_tokens=2"),
    (5, "mode=slow events={events} gap_ms={gap}"),
    (4, "mode=close_mid_stream+usage_cumulative events=9 gap_ms={gap}"),
    (3, "mode=reset_mid_stream events=9 gap_ms={gap}"),
    (3, "mode=no_usage events=3"),
    (2, "mode=error_with_usage"),
    (2, "mode=status status=503"),
    (2, "mode=split_multibyte"),
)


@dataclass(frozen=True, slots=True)
class Customer:
    """An account with a key."""

    account_id: str
    secret: str


class Crowd:
    """All customers. `run` until stopped; `sightings` are what they saw."""

    def __init__(self, plant: Plant, customers: Sequence[Customer], seed: int, think_s: float) -> None:
        self._plant, self._customers, self._seed, self._think_s = plant, customers, seed, think_s
        self.sightings: list[Sighting] = []
        self.open = 0
        self._is_stopped = False

    def stop(self) -> None:
        """No new requests."""
        self._is_stopped = True

    async def run(self, raw: int, sdk: int) -> None:
        """So many at a time, of either kind of client."""
        workers = [self._work(number, self._ask_raw) for number in range(raw)]
        workers += [self._work(raw + number, self._ask_by_sdk) for number in range(sdk)]
        await asyncio.gather(*workers)

    async def _work(self, number: int, ask: "Callable[[random.Random, Customer, str], Any]") -> None:
        dice = random.Random(f"customer {self._seed} {number}")
        asked = 0
        while not self._is_stopped:
            asked += 1
            self.open += 1
            try:
                await ask(dice, dice.choice(self._customers), f"{number}-{asked}")
            finally:
                self.open -= 1
            is_served = self.sightings[-1].ending not in (Ending.UNREACHABLE, Ending.REFUSED)
            await asyncio.sleep(dice.expovariate(1 / self._think_s) if is_served else dice.uniform(0.3, 1.0))

    # -- a client that sees bytes --

    async def _ask_raw(self, dice: random.Random, customer: Customer, marker: str) -> None:
        is_once = dice.random() < 0.4
        marker = f"{ONCE if is_once else 't'}{marker}"
        body, path = _question(dice, marker)
        cancel_at = dice.randrange(1, 1200) if dice.random() < 0.25 else None
        edges = dice.sample(EDGES, len(EDGES))
        for attempt in range(1 + _RETRIES_MAX):
            edge = edges[attempt % len(edges)]
            talk = _Talk(customer, edge, body, path, marker if is_once else "")
            try:
                async with asyncio.timeout(dice.uniform(*_PATIENCE_S)):
                    await talk.hold(self._plant.parts[edge].port, cancel_at)
            except TimeoutError:
                talk.cancel()
            except (OSError, asyncio.IncompleteReadError):
                pass
            sighting = talk.sighting()
            self.sightings.append(sighting)
            is_temporary = sighting.ending in (Ending.BROKEN, Ending.UNREACHABLE) or sighting.status in (429, 503)
            if not is_temporary or self._is_stopped or attempt == _RETRIES_MAX:
                return
            # As a balancer and a client's own back-off would: nobody hammers an edge that is not there.
            await asyncio.sleep(dice.uniform(0.2, 1.0))

    # -- OpenAI's own --

    async def _ask_by_sdk(self, dice: random.Random, customer: Customer, marker: str) -> None:
        edge = dice.choice(EDGES)
        body, _ = _question(dice, f"t{marker}", is_chat=True)
        body["stream"] = True
        cancel_after = dice.randrange(1, 8) if dice.random() < 0.25 else None
        start_s, request_id, status = time.time(), "", 0
        ending, tokens = Ending.UNREACHABLE, None
        try:
            async with openai.AsyncOpenAI(
                base_url=f"http://127.0.0.1:{self._plant.parts[edge].port}/v1",
                api_key=customer.secret,
                max_retries=_RETRIES_MAX,
                timeout=_PATIENCE_S[1],
            ) as client:
                response = await client.chat.completions.with_raw_response.create(**body)
                request_id, status = response.headers["x-request-id"], response.status_code
                ending = Ending.BROKEN
                chunks = 0
                stream: Any = response.parse()
                async for chunk in stream:
                    chunks += 1
                    tokens = tokens_from_usage(chunk.usage.model_dump()) if chunk.usage else tokens
                    if chunks == cancel_after:
                        ending = Ending.CANCELLED
                        await stream.close()
                        break
                else:
                    ending = Ending.COMPLETED
        except openai.APIStatusError as error:
            ending, status = Ending.REFUSED, error.status_code
            request_id = error.response.headers.get("x-request-id", "")
        except (openai.APIError, httpx2.HTTPError, OSError):
            pass  # its HTTP library's own, where a stream breaks off
        told = tokens if ending is Ending.COMPLETED else None
        self.sightings.append(
            Sighting(
                request_id, customer.account_id, edge, start_s, time.time(), status, ending, told, _may_break(body)
            )
        )


def _may_break(body: dict[str, Any]) -> bool:
    return "_mid_stream" in json.dumps(body)


def _question(dice: random.Random, marker: str, *, is_chat: bool = False) -> tuple[dict[str, Any], str]:
    """A body, and where to post it."""
    (_, script) = dice.choices(_SCRIPTS, [weight for weight, _ in _SCRIPTS])[0]
    gap = dice.choice((0, 5, 20, 60)) if dice.random() < 0.95 else 250
    directive = script.format(events=dice.randrange(1, 30), gap=gap)
    words = " ".join(["word"] * dice.randrange(1, 30))
    text = f"{marker} [[{directive}]] {words}"
    is_stream = dice.random() < 0.7
    if not is_chat and dice.random() < 0.2:
        return {"model": MODEL, "stream": is_stream, "input": text, "max_output_tokens": _MAX_TOKENS}, RESPONSES
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": _MAX_TOKENS,
        "stream": is_stream,
    }
    if is_stream and dice.random() < 0.5:
        body["stream_options"] = {"include_usage": True}
    return body, CHAT


class _Talk:
    """One request on a connection of its own."""

    def __init__(self, customer: Customer, edge: str, question: dict[str, Any], path: str, key: str) -> None:
        self._customer, self._edge, self._question, self._path = customer, edge, question, path
        self._idempotency_key = key
        self._is_stream, self._is_responses = question["stream"], path == RESPONSES
        self._start_s = time.time()
        self._status, self._request_id = 0, ""
        self._body = b""
        self._is_cancelled = self._is_whole = self._is_chunked = False

    def cancel(self) -> None:
        """The client has gone away by itself."""
        self._is_cancelled = True

    async def hold(self, port: int, cancel_at: int | None) -> None:
        """Asks, and reads to the end, or until so many bytes of the answer are there: then it goes away."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            headers = [("Authorization", f"Bearer {self._customer.secret}"), ("Connection", "close")]
            if self._idempotency_key:
                headers.append(("Idempotency-Key", self._idempotency_key))
            writer.write(request_bytes(self._question, self._path, *headers))
            if cancel_at is not None and not self._is_stream:
                await asyncio.sleep(cancel_at / 10_000)
                self._is_cancelled = True
                writer.transport.abort()
                return
            head = await reader.readuntil(b"\r\n\r\n")
            length = self._take_head(head)
            data = b""
            while True:
                if cancel_at is not None and len(data) >= cancel_at:
                    self._is_cancelled = True
                    return
                if length is not None and len(data) >= length:
                    self._is_whole = True
                    break
                if self._is_chunked and data.endswith(b"\r\n0\r\n\r\n"):
                    self._is_whole = True
                    break
                piece = await reader.read(65_536)
                if not piece:
                    break
                data += piece
                self._body = data
        finally:
            writer.close()

    def _take_head(self, head: bytes) -> int | None:
        """The body's length, if it is told."""
        lines = head.decode("latin-1").split("\r\n")
        self._status = int(lines[0].split(" ")[1])
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self._request_id = fields.get("x-request-id", "")
        length = fields.get("content-length")
        self._is_chunked = fields.get("transfer-encoding") == "chunked"
        return int(length) if length is not None else None

    def sighting(self) -> Sighting:
        ending, tokens = self._ending()
        return Sighting(
            self._request_id,
            self._customer.account_id,
            self._edge,
            self._start_s,
            time.time(),
            self._status,
            ending,
            tokens,
            _may_break(self._question),
        )

    def _ending(self) -> tuple[Ending, Tokens | None]:
        if self._is_cancelled:
            return Ending.CANCELLED, None
        if not self._status:
            return Ending.UNREACHABLE, None
        if self._status != 200:
            return Ending.REFUSED, None
        if not self._is_stream:
            if not self._is_whole:
                return Ending.BROKEN, None
            return Ending.COMPLETED, tokens_from_usage(json.loads(_plain(self._body, self._is_chunked)).get("usage"))
        # What tells a customer that a stream is whole is its terminal event, not the end of the connection.
        lines = _plain(self._body, self._is_chunked).decode(errors="replace").split("\n")
        # The last line may have broken off.
        events = [json.loads(line[6:]) for line in lines[:-1] if line.startswith("data: {")]
        if any("error" in event for event in events):
            return Ending.BROKEN, None
        if self._is_responses:
            terminals = [event for event in events if event["type"] in ("response.completed", "response.incomplete")]
            if not terminals:
                return Ending.BROKEN, None
            return Ending.COMPLETED, tokens_from_usage(terminals[0]["response"].get("usage"))
        if "data: [DONE]" not in lines:
            return Ending.BROKEN, None
        told = [event["usage"] for event in events if event.get("usage")]
        return Ending.COMPLETED, tokens_from_usage(told[-1]) if told else None


def _plain(body: bytes, is_chunked: bool) -> bytes:
    """A body without its framing, as far as it came."""
    if not is_chunked:
        return body
    plain = b""
    while b"\r\n" in body:
        size, _, rest = body.partition(b"\r\n")
        plain += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return plain
