"""The SSE splitter: verbatim pieces, whatever the line ends and wherever the network cuts."""

import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.upstream.sse import (
    EventSplitter,
    EventTooLarge,
    completed_event,
    data_spans,
    event_data,
    event_name,
    is_event,
)
from tests.harness.naive_stream import fields_of, lines_of, pieces_of, written

LINES = st.sampled_from(
    [b"", b"", b":", b": ping", b"data: a", b"data:b", b"data", b"data:  c", b"event: x", b"id", "data: é🙂".encode()]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=12).map(lambda lines: b"".join(a + b for a, b in lines))


def split(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    """All pieces, a late LF given back to its piece, and the rest."""
    splitter = EventSplitter()
    pieces: list[bytes] = []
    for chunk in chunks:
        more = splitter.feed(chunk)
        if splitter.late_line_feed:
            pieces[-1] += b"\n"
        pieces += more
    return pieces, splitter.finish()


def naive_split(stream: bytes) -> tuple[list[bytes], bytes]:
    pieces, rest = pieces_of(stream)
    return [written(piece) for piece in pieces], written(rest)


@given(stream=STREAMS, bom=st.booleans(), torn=st.sampled_from([b"", b"data: to", b":to"]), rng=st.randoms())
def test_every_cut_gives_the_same_pieces(stream: bytes, bom: bool, torn: bytes, rng: Random) -> None:
    stream = (b"\xef\xbb\xbf" if bom else b"") + stream + torn
    expected = naive_split(stream)
    assert split([stream]) == expected
    assert split([stream[at : at + 1] for at in range(len(stream))]) == expected
    for at in range(len(stream) + 1):
        assert split([stream[:at], stream[at:]]) == expected
    cuts = sorted(rng.sample(range(len(stream) + 1), k=min(4, len(stream))))
    assert split([stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]) == expected


@given(stream=STREAMS)
def test_fields_are_read_as_a_client_reads_them(stream: bytes) -> None:
    for piece in filter(is_event, split([stream])[0]):
        name, data = fields_of(lines_of(piece))
        assert event_name(piece) == name.encode()
        assert event_data(piece) == (data.encode() if data is not None else None)
        assert b"\n".join(piece[start:end] for start, end in data_spans(piece)) == (data or "").encode()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_comes_out_with_its_last_byte_whatever_the_line_end(end: bytes) -> None:
    splitter = EventSplitter()
    event = b"data: x" + end
    assert splitter.feed(event) == []
    assert splitter.feed(end) == [event + end]


def test_a_comment_comes_out_with_its_line_end() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b": working\n") == [b": working\n"]
    assert splitter.feed(b"data: x\n: in") == []
    assert splitter.feed(b"side\n\n") == [b"data: x\n: inside\n\n"]


def test_the_line_feed_of_a_cut_crlf_is_told_apart_from_a_blank_line() -> None:
    splitter = EventSplitter()
    seen = [
        (splitter.feed(data), splitter.late_line_feed, splitter.between_events)
        for data in (b"data: x\r\n\r", b"\n", b"\n")
    ]
    assert seen == [([b"data: x\r\n\r"], False, False), ([], True, True), ([b"\n"], False, True)]


def test_a_bom_is_a_piece_of_its_own_only_at_the_start() -> None:
    bom = b"\xef\xbb\xbf"
    assert split([bom[:1], bom[1:2], bom[2:] + b"data: x\n\n", bom + b"y: z\n\n"]) == (
        [bom, b"data: x\n\n", bom + b"y: z\n\n"],
        b"",
    )


@pytest.mark.parametrize("rest", [b"data: x", b"data: x\n", b"data: x\r\n", b"data: x\r"])
def test_a_torn_event_is_completed_in_its_own_line_ends(rest: bytes) -> None:
    pieces, left = split([completed_event(rest)])
    assert left == b""
    assert len(pieces) == 1
    assert pieces[0].startswith(rest)
    assert event_data(pieces[0]) == b"x"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_over_the_limit_is_refused_in_any_pieces(size: int) -> None:
    event = b"data: " + b"x" * 992 + b"\n\n"
    assert split_with_limit(event, size, 1000) == [event]
    for stream in (b"data: " + b"x" * 993 + b"\n\n", b"data: " + b"x" * 5000, b":" + b"x" * 5000):
        with pytest.raises(EventTooLarge):
            split_with_limit(stream, size, 1000)


def split_with_limit(stream: bytes, size: int, limit: int) -> list[bytes]:
    splitter = EventSplitter(limit)
    return [piece for at in range(0, len(stream), size) for piece in splitter.feed(stream[at : at + size])]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_time_for_an_event_in_small_pieces_grows_with_its_size_only(end: bytes) -> None:
    def seconds(size: int) -> float:
        event = b"data: " + b"x" * size + end + end
        chunks = [event[at : at + 64] for at in range(0, len(event), 64)]
        best = float("inf")
        for _ in range(3):
            splitter = EventSplitter()
            start = time.process_time()
            for chunk in chunks:
                splitter.feed(chunk)
            best = min(best, time.process_time() - start)
        return best

    # 16 times the bytes: 16 times the work if linear, 256 if quadratic.
    assert seconds(1 << 20) < 80 * seconds(1 << 16)
