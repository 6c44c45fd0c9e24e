"""The scripted upstream does what its table of modes says, and its honest answers satisfy the real OpenAI client."""

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.request import urlopen

import brotli
import openai
import pytest
import zstandard

from tests.harness.eventually import eventually, eventually_sync
from tests.harness.raw_client import CHAT, RESPONSES, RawClient, asking, body_of, events_of, request_bytes
from tests.harness.scripted_upstream import ScriptedUpstream
from tests.harness.upstream_answer import MODES, Afterwards, Answer, Ending, UsageAt, answer_from_options
from tests.harness.upstream_http import RequestCutter
from tests.harness.upstream_process import upstream_process


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


def usages_of(events: list[dict[str, Any]]) -> list[Any]:
    return [event.get("usage", "absent") for event in events]


async def test_the_openai_client_reads_every_honest_answer(upstream: ScriptedUpstream) -> None:
    async with openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="sk-test", max_retries=0) as client:
        whole = await client.chat.completions.create(
            model="scripted/ok", messages=[{"role": "user", "content": "one two three"}]
        )
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, 5)
        assert whole.choices[0].message.content == "Hello from the scripted upstream."

        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model="scripted/ok",
                messages=[{"role": "user", "content": "one two three"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        ]
        assert (
            "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
        )
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 8
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * 7

        response = await client.responses.create(model="scripted/ok", instructions="one", input="two three")
        assert response.output_text == whole.choices[0].message.content
        assert response.usage is not None
        assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 5)

        async with client.responses.stream(model="scripted/ok", input="one two three") as stream:
            kinds = [event.type async for event in stream]
            assert (await stream.get_final_response()).output_text == response.output_text
        assert kinds[:4] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
        ]
        assert kinds[-1] == "response.completed"
        assert [model.id async for model in client.models.list()] == ["scripted/ok"]
    assert [report.usage["total_tokens"] for report in upstream.reported] == [8, 8, 8, 8]
    assert all(report.whole and report.status == 200 for report in upstream.reported)


async def test_a_request_is_recorded_exactly_as_it_came(upstream: ScriptedUpstream) -> None:
    body = b'{"mod\\u0065l": "x",  "temperature": 1e-7, "messages": []}'
    head = b"POST /v1/chat/completions?x=%2F HTTP/1.1\r\nhOsT: a\r\nX-Two:  b \r\nX-Two: c\r\nConnection: close\r\n"
    reader, writer = await RawClient(upstream.url).open()
    writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + b"a\r\n" + body[:10] + b"\r\n")
    writer.write(b"%x;ext=1\r\n%b\r\n0\r\nTrailer: t\r\n\r\n" % (len(body) - 10, body[10:]))
    assert b"200 OK" in await reader.read()
    writer.close()
    [request] = upstream.requests
    assert request.body == body
    assert (request.method, request.target) == ("POST", "/v1/chat/completions?x=%2F")
    assert request.headers[:3] == [("hOsT", "a"), ("X-Two", "b"), ("X-Two", "c")]
    assert request.header("HOST") == "a"


def test_requests_are_cut_from_a_stream_at_every_byte() -> None:
    chunked = b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    wire = request_bytes({"a": 1}) + chunked + b"GET /c HTTP/1.1\r\n\r\n"
    for cut in range(len(wire) + 1):
        cutter = RequestCutter()
        found = []
        for piece in (wire[:cut], wire[cut:]):
            cutter.feed(piece)
            while (request := cutter.next()) is not None:
                found.append((request.target, request.body))
        assert found == [(CHAT, b'{"a": 1}'), ("/b", b"abcde"), ("/c", b"")]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("ok", ["absent"] * 4),
        ("usage-last-chunk", ["absent"] * 4 + [2]),
        ("usage-last-content", ["absent"] * 3 + [2]),
        ("usage-null-everywhere", [None] * 4 + [2]),
        ("usage-cumulative", [0, 1, 2, 2]),
        ("usage-then-null", ["absent"] * 3 + [2, None]),
        ("no-usage", ["absent"] * 4),
        ("usage-last-chunk+finish-on-content", ["absent"] * 3 + [2]),
    ],
)
async def test_usage_stands_where_the_mode_puts_it(upstream: ScriptedUpstream, mode: str, expected: list[Any]) -> None:
    events = events_of(body_of(await RawClient(upstream.url).ask(asking(f"{mode}:events=2"))))
    seen = [usage["completion_tokens"] if isinstance(usage, dict) else usage for usage in usages_of(events)]
    assert seen == expected
    said = upstream.reported[0].usage
    assert (said and said["completion_tokens"]) == (None if mode in ("ok", "no-usage") else 2)


async def test_usage_can_stand_in_the_choice_and_beside_timings(upstream: ScriptedUpstream) -> None:
    events = events_of(body_of(await RawClient(upstream.url).ask(asking("usage-in-choice+llamacpp+azure"))))
    assert events[0]["choices"] == []
    assert events[-1]["choices"][0]["usage"]["completion_tokens"] == 5
    asked = asking("llamacpp", stream_options={"include_usage": True, "continuous_usage_stats": True})
    events = events_of(body_of(await RawClient(upstream.url).ask(asked)))
    assert [event["usage"]["completion_tokens"] for event in events] == [0, 1, 2, 3, 4, 5, 5, 5]
    assert events[-1]["timings"]["predicted_n"] == 5


async def test_counts_and_limits_follow_the_script_and_the_request(upstream: ScriptedUpstream) -> None:
    text = "[[prompt_tokens=10 completion_tokens=7 cached_tokens=4 reasoning_tokens=2]]"
    whole = json.loads(body_of(await RawClient(upstream.url).ask(asking("ok", stream=False, text=text))))
    assert whole["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    asked = asking("ok", stream=False, n=2, max_tokens=3)
    whole = json.loads(body_of(await RawClient(upstream.url).ask(asked)))
    assert whole["usage"]["completion_tokens"] == 6
    assert [choice["finish_reason"] for choice in whole["choices"]] == ["length", "length"]
    upstream.script(Answer(usage_json='{"prompt_tokens":1e400}'), Answer(prompt_tokens=-5))
    assert b'"usage":{"prompt_tokens":1e400}' in await RawClient(upstream.url).ask(asking("ok", stream=False))
    assert (
        json.loads(body_of(await RawClient(upstream.url).ask(asking("ok", stream=False))))["usage"]["prompt_tokens"]
        == -5
    )
    assert upstream.reported[2].usage == '{"prompt_tokens":1e400}'


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_compressed_answer_is_the_plain_one_compressed(
    upstream: ScriptedUpstream, coding: str, stream: bool
) -> None:
    upstream.script(Answer(), Answer(compress=coding))
    plain, packed = [await RawClient(upstream.url).ask(asking("ok", stream=stream)) for _ in range(2)]
    assert f"content-encoding: {coding}".encode() in packed
    body = body_of(packed)
    if coding == "br":
        body = brotli.decompress(body)
    elif coding == "zstd":
        body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
    else:
        body = zlib.decompress(body, wbits=47)
    assert body.replace(b"scripted-2", b"scripted-1") == body_of(plain)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
async def test_an_event_stream_takes_every_legal_form(upstream: ScriptedUpstream, line_end: bytes) -> None:
    mode = {b"\n": "ok", b"\r\n": "crlf", b"\r": "cr"}[line_end]
    body = body_of(await RawClient(upstream.url).ask(asking(f"{mode}+comments+bom+multiline+tight")))
    assert body.startswith(b"\xef\xbb\xbf: a comment")
    rest = body.replace(line_end, b"")
    assert b"\r" not in rest
    assert b"\n" not in rest
    blocks = body.removeprefix(b"\xef\xbb\xbf").decode().split((2 * line_end).decode())
    data = ["\n".join(ln[5:] for ln in b.split(line_end.decode()) if ln.startswith("data:")) for b in blocks]
    events = [text for text in data if text]
    assert events[-1] == "[DONE]"
    assert [json.loads(text)["object"] for text in events[:-1]] == ["chat.completion.chunk"] * 7


async def test_writes_are_cut_where_the_script_says(upstream: ScriptedUpstream) -> None:
    upstream.script(Answer(split_at=(1, 100, 101)), Answer(split_every=1, events=1))
    chunked = (await RawClient(upstream.url).ask(asking("ok"))).partition(b"\r\n\r\n")[2]
    assert chunked.startswith(b"1\r\nd\r\n63\r\n")
    assert b"\r\n1\r\n" in chunked
    single = (await RawClient(upstream.url).ask(asking("ok"))).partition(b"\r\n\r\n")[2]
    assert single.count(b"1\r\n") >= len(body_of(b"transfer-encoding: chunked\r\n\r\n" + single))
    split = (await RawClient(upstream.url).ask(asking("split-multibyte"))).partition(b"\r\n\r\n")[2]
    with pytest.raises(UnicodeDecodeError):
        split.decode()
    events = events_of(body_of(b"transfer-encoding: chunked\r\n\r\n" + split))
    content = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert content == MODES["split_multibyte"]["text"]


@pytest.mark.parametrize("framing", ["length_body", "chunked_body", "close_body"])
@pytest.mark.parametrize("stream", [True, False])
async def test_each_framing_carries_the_same_body(upstream: ScriptedUpstream, framing: str, stream: bool) -> None:
    answer = await RawClient(upstream.url).ask(asking(framing, stream=stream))
    assert (b"content-length" in answer) == (framing == "length_body")
    assert (b"transfer-encoding: chunked" in answer) == (framing == "chunked_body")
    assert body_of(answer).endswith(b"data: [DONE]\n\n" if stream else b"}")


@pytest.mark.parametrize("status", [400, 404, 408, 409, 418, 422, 429, 500, 502, 503, 504, 529, 599])
async def test_every_error_status_comes_with_a_body(upstream: ScriptedUpstream, status: int) -> None:
    answer = await RawClient(upstream.url).ask(asking(f"status:status={status}:retry_after=2"))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"retry-after: 2\r\n" in answer
    assert json.loads(body_of(answer))["error"]["code"] == f"scripted_{status}"
    assert upstream.reported[0].usage is None
    assert upstream.reported[0].status == status


async def test_stream_options_are_refused_only_where_they_are_given(upstream: ScriptedUpstream) -> None:
    refused = await RawClient(upstream.url).ask(asking("refuse_stream_options", stream_options={"include_usage": True}))
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body_of(refused))["error"]["param"] == "stream_options"
    assert (await RawClient(upstream.url).ask(asking("refuse_stream_options"))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("where", "status"), [("before_headers", 0), ("mid_stream", 200)])
async def test_it_dies_by_rst_or_cleanly_where_it_is_told_to(
    upstream: ScriptedUpstream, where: str, status: int
) -> None:
    reader, writer = await RawClient(upstream.url).open()
    writer.write(request_bytes(asking(f"reset_{where}")))
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()
    closed = await RawClient(upstream.url).ask(asking(f"close_{where}"))
    assert len(events_of(body_of(closed + b"0\r\n"))) == (3 if status else 0)
    assert b"[DONE]" not in closed
    assert [(report.whole, report.status) for report in upstream.reported] == [(False, status)] * 2


async def test_a_stall_lasts_until_the_peer_gives_up(upstream: ScriptedUpstream) -> None:
    reader, writer = await RawClient(upstream.url).open()
    writer.write(request_bytes(asking("stall-mid-stream+usage-cumulative")))
    await eventually(lambda: upstream.reported and upstream.reported[0].usage)
    assert b"Hello" in await reader.read(1 << 16)
    assert not upstream.reported[0].peer_gone
    writer.close()
    await eventually(lambda: upstream.reported[0].peer_gone)
    assert not upstream.reported[0].whole
    assert upstream.reported[0].usage["completion_tokens"] == 2


async def test_half_a_body_breaks_its_own_content_length(upstream: ScriptedUpstream) -> None:
    upstream.script(Answer(ending=Ending.CLOSE, ending_after=0), Answer(ending=Ending.CLOSE, ending_after_bytes=150))
    head, _, body = (await RawClient(upstream.url).ask(asking("ok", stream=False))).partition(b"\r\n\r\n")
    promised = int(head.lower().partition(b"content-length: ")[2].split()[0])
    assert 0 < len(body) < promised
    streamed = await RawClient(upstream.url).ask(asking("ok"))
    assert len(body_of(streamed)) == upstream.reported[1].body_bytes == 150


@pytest.mark.parametrize("afterwards", [Afterwards.CLOSE_ON_NEXT, Afterwards.RESET_ON_NEXT, Afterwards.CLOSE])
async def test_a_kept_connection_goes_stale(upstream: ScriptedUpstream, afterwards: Afterwards) -> None:
    upstream.script(Answer(afterwards=afterwards))
    reader, writer = await RawClient(upstream.url).open()
    writer.write(request_bytes(asking("ok", stream=False)))
    assert b"connection: close" not in await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b'"total_tokens":8}}')
    if afterwards is Afterwards.CLOSE:
        assert await asyncio.wait_for(reader.read(), 10) == b""
    else:
        writer.write(request_bytes(asking("ok", stream=False)))
        if afterwards is Afterwards.CLOSE_ON_NEXT:
            assert await asyncio.wait_for(reader.read(), 10) == b""
        else:
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 10)
        assert upstream.record.dropped == 1
    writer.close()
    assert len(upstream.requests) == 1


async def test_one_connection_serves_many_requests(upstream: ScriptedUpstream) -> None:
    reader, writer = await RawClient(upstream.url).open()
    for _ in range(3):
        writer.write(request_bytes(asking("ok")))
        assert (await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10)).startswith(b"HTTP/1.1 200")
    writer.close()
    assert [request.connection for request in upstream.requests] == [1, 1, 1]


async def test_it_can_refuse_connections_and_come_back_on_its_port(upstream: ScriptedUpstream) -> None:
    url = upstream.url
    await upstream.refuse()
    with pytest.raises(ConnectionRefusedError):
        await RawClient(upstream.url).open()
    await upstream.start()
    assert upstream.url == url
    assert b"200 OK" in await RawClient(upstream.url).ask(asking("ok"))


async def test_a_slow_answer_takes_its_time(upstream: ScriptedUpstream) -> None:
    start = time.monotonic()
    await RawClient(upstream.url).ask(asking("slow:headers_delay_ms=30:gap_ms=10"))
    assert time.monotonic() - start >= 0.03 + 7 * 0.01


async def test_raw_bytes_and_odd_heads_are_sent_as_they_are(upstream: ScriptedUpstream) -> None:
    assert await RawClient(upstream.url).ask(asking("garbage")) == MODES["garbage"]["raw"]
    upstream.script(Answer(body=b"data: x\r\rdata: y"), Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno!"))
    assert body_of(await RawClient(upstream.url).ask(asking("ok"))) == b"data: x\r\rdata: y"
    assert (await RawClient(upstream.url).ask(asking("ok"))).endswith(b"\r\n\r\nno!")
    odd = await RawClient(upstream.url).ask(asking("odd_headers"))
    assert odd.count(b"Set-Cookie: ") == 2
    assert b"Connection: X-Hop" in odd
    html = await RawClient(upstream.url).ask(asking("html_502"))
    assert html.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"content-type: text/html" in html


@pytest.mark.parametrize(("mode", "last"), [("failed", "failed"), ("incomplete", "incomplete")])
async def test_a_responses_stream_ends_as_scripted(upstream: ScriptedUpstream, mode: str, last: str) -> None:
    body = {"model": f"scripted/{mode}", "stream": True, "input": "one two"}
    events = events_of(body_of(await RawClient(upstream.url).ask(body, RESPONSES)))
    assert events[-1]["type"] == f"response.{last}"
    assert events[-1]["response"]["usage"]["input_tokens"] == 2
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    body["model"] = "scripted/second_terminal"
    events = events_of(body_of(await RawClient(upstream.url).ask(body, RESPONSES)))
    assert [event["response"]["usage"]["input_tokens"] for event in events[-2:]] == [2, 4]


async def test_content_that_looks_like_usage_is_only_content(upstream: ScriptedUpstream) -> None:
    events = events_of(body_of(await RawClient(upstream.url).ask(asking("tricky_content"))))
    content = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert content == MODES["tricky_content"]["text"]
    assert upstream.reported[0].usage is None


async def test_an_event_of_a_megabyte_arrives_whole(upstream: ScriptedUpstream) -> None:
    events = events_of(body_of(await RawClient(upstream.url).ask(asking("big_event"))))
    assert len(events[1]["choices"][0]["delta"]["content"]) == 1 << 20


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("mode", [mode for mode in MODES if not mode.startswith("stall")])
async def test_every_mode_answers_and_is_reported(
    upstream: ScriptedUpstream, mode: str, path: str, stream: bool
) -> None:
    body = asking(f"{mode}:headers_delay_ms=0:gap_ms=0", stream=stream, input="one two three")
    try:
        await RawClient(upstream.url).ask(body, path)
    except ConnectionResetError:
        assert "reset" in mode
    [report] = upstream.reported
    assert report.model == f"scripted/{mode}:headers_delay_ms=0:gap_ms=0"
    assert report.whole == (not mode.startswith(("reset_before", "reset_mid", "close_before", "close_mid")))


async def test_a_mistake_in_a_script_is_told_and_not_guessed_around(upstream: ScriptedUpstream) -> None:
    for model in ("scripted/no-such-mode", "scripted/ok:evnts=3", "scripted/ok:events=many"):
        answer = await RawClient(upstream.url).ask({"model": model})
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"bad_script" in answer
    with pytest.raises(ValueError, match="no mode"):
        answer_from_options({"mode": "nope"})


def test_it_runs_as_a_process_of_its_own() -> None:
    with upstream_process() as remote:
        remote.script(Answer(usage_at=UsageAt.LAST_CHUNK, headers=(("X-A", "b"),), body=b"\xff"))
        with openai.OpenAI(base_url=f"{remote.url}/v1", api_key="sk-test", max_retries=0) as client:
            answer = client.chat.completions.with_raw_response.create(model="m", messages=[])
        assert answer.content == b"\xff"
        assert answer.headers["x-a"] == "b"
        record = remote.record()
        assert record.requests[0].json["model"] == "m"
        assert record.reported[0].whole
        remote.reset()
        assert remote.record().requests == []
        remote.refuse(for_ms=50)
        eventually_sync(lambda: is_up(remote.url))


def is_up(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
