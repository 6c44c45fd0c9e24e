"""The spool's bytes: whatever happens to them, no wrong record is ever taken for a right one."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.metering.spool_format import (
    BODY_BYTES_MAX,
    HEADER_BYTES,
    Damage,
    Frame,
    Kind,
    frame,
    scan,
    segment_seed,
)

SEED = segment_seed("0190b5a0-0000-7000-8000-000000000000", 3, 1)

Records = list[tuple[Kind, int, bytes]]

records_of_any_kind = st.lists(
    st.tuples(st.sampled_from(Kind), st.integers(0, 2**63), st.binary(max_size=60)), min_size=1, max_size=8
)


def written(records: Records, seed: int = SEED) -> bytes:
    data = b""
    for kind, seq, body in records:
        data += frame(kind, seq, body, len(data), seed)
    return data


def good(data: bytes) -> Records:
    return [(each.kind, each.seq, each.body) for each in scan(data, 0, SEED) if isinstance(each, Frame)]


SAMPLE: Records = [
    (Kind.ADMITTED, 0, b'["a"]'),
    (Kind.RECORD, 1, b"first event"),
    (Kind.RECORD, 2, b"\xa7\x51\x01\x01 looks like a header"),
    (Kind.RECORD, 3, b""),
    (Kind.RECORD, 4, b"ends in zeros\0\0\0"),
]


def test_what_was_written_is_read_back() -> None:
    assert good(written(SAMPLE)) == SAMPLE
    assert good(written(SAMPLE) + bytes(500)) == SAMPLE


def test_zeros_that_were_allocated_ahead_are_not_damage() -> None:
    assert list(scan(bytes(1000), 0, SEED)) == []
    assert not [each for each in scan(written(SAMPLE) + bytes(1000), 0, SEED) if isinstance(each, Damage)]


@pytest.mark.parametrize("padding", [0, 100])
def test_a_cut_at_every_byte_loses_only_what_it_hit(padding: int) -> None:
    data = written(SAMPLE)
    ends = [each.end for each in scan(data, 0, SEED) if isinstance(each, Frame)]
    for cut in range(len(data)):
        whole = sum(1 for end in ends if end <= cut)
        found = good(data[:cut] + bytes(padding))
        # Cut-off zeros come back as padding, and then the record is whole again.
        assert found[:whole] == SAMPLE[:whole]
        assert found in (SAMPLE[:whole], SAMPLE[: whole + 1])


def test_a_flip_of_every_byte_costs_one_record_and_is_reported() -> None:
    data = written(SAMPLE)
    spans = [(each.offset, each.end) for each in scan(data, 0, SEED) if isinstance(each, Frame)]
    for position in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            broken = data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]
            hit = next(index for index, (start, end) in enumerate(spans) if start <= position < end)
            assert good(broken) == SAMPLE[:hit] + SAMPLE[hit + 1 :]
            damages = [each for each in scan(broken, 0, SEED) if isinstance(each, Damage)]
            assert [each.offset for each in damages] == [spans[hit][0]]
            assert damages[0].is_tail == (hit == len(SAMPLE) - 1)


@settings(max_examples=200)
@given(records_of_any_kind, st.data())
def test_random_damage_never_invents_a_record(records: Records, data: st.DataObject) -> None:
    clean = written(records)
    start = data.draw(st.integers(0, len(clean) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=80))
    broken = clean[:start] + junk + clean[start + len(junk) :]
    found = good(broken)
    remaining = iter(records)
    assert all(each in remaining for each in found), "in order, and nothing that was not written"
    untouched = [
        (each.kind, each.seq, each.body)
        for each in scan(clean, 0, SEED)
        if isinstance(each, Frame) and (each.end <= start or each.offset >= start + len(junk))
    ]
    assert all(each in found for each in untouched)


@given(st.binary(max_size=300))
def test_any_bytes_at_all_can_be_scanned(data: bytes) -> None:
    assert good(data) == []


def test_a_whole_frame_inside_a_body_is_not_a_record() -> None:
    inner = frame(Kind.RECORD, 9, b"forged", 0, SEED)
    outer = frame(Kind.RECORD, 1, inner, 0, SEED)
    broken = b"\0" + outer[1:]
    assert good(broken) == []


def test_a_frame_of_another_segment_or_place_is_not_a_record() -> None:
    other_segment = segment_seed("0190b5a0-0000-7000-8000-000000000000", 3, 2)
    assert good(written(SAMPLE, other_segment)) == []
    assert good(bytes(7) + written(SAMPLE)) == []


def test_a_record_that_is_too_long_is_refused() -> None:
    frame(Kind.RECORD, 1, bytes(BODY_BYTES_MAX), 0, SEED)
    with pytest.raises(ValueError, match="at most"):
        frame(Kind.RECORD, 1, bytes(BODY_BYTES_MAX + 1), 0, SEED)


def test_a_frame_of_an_unknown_kind_is_damage_even_with_a_right_checksum() -> None:
    good_frame = bytearray(frame(Kind.RECORD, 1, b"x", 0, SEED))
    good_frame[2] = 7
    head = bytes(good_frame[: HEADER_BYTES - 4])
    good_frame[HEADER_BYTES - 4 : HEADER_BYTES] = zlib.crc32(b"x", zlib.crc32(head, SEED)).to_bytes(4, "little")
    assert [type(each) for each in scan(bytes(good_frame), 0, SEED)] == [Damage]
