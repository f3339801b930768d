"""Frames: what goes in comes out, and what was damaged does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydeploy.errors import DeviceError
from tinydeploy.run import protocol
from tinydeploy.run.protocol import Frame, FrameReader, cobs_decode, cobs_encode, decode, encode

# Runs around the block length of 254 are where COBS goes wrong.
blocks = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.integers(250, 260).map(lambda n: b"\x07" * n),
        st.just(b"\0"),
    ),
    max_size=6,
).map(b"".join)
frames = st.builds(Frame, st.integers(0, 255), st.integers(0, 65_535), blocks)


@given(blocks)
def test_cobs_round_trip_without_zeros(data: bytes) -> None:
    line = cobs_encode(data)
    assert 0 not in line
    assert len(line) <= len(data) + len(data) // 254 + 1
    assert cobs_decode(line) == data


@pytest.mark.parametrize(
    ("data", "line"),
    [  # Cheshire and Baker, and the corners of a full block
        (b"", b"\x01"),
        (b"\0", b"\x01\x01"),
        (b"\x11\x22\0\x33", b"\x03\x11\x22\x02\x33"),
        (b"\x01" * 254, b"\xff" + b"\x01" * 254),
        (b"\x01" * 254 + b"\0", b"\xff" + b"\x01" * 254 + b"\x01\x01"),
        (b"\x01" * 255, b"\xff" + b"\x01" * 254 + b"\x02\x01"),
    ],
)
def test_cobs_known_values(data: bytes, line: bytes) -> None:
    assert cobs_encode(data) == line
    assert cobs_decode(line) == data


def test_crc_check_value() -> None:
    assert protocol.crc32(b"123456789") == 0xCBF43926  # CRC-32/ISO-HDLC


@given(st.lists(frames, max_size=4), st.data())
def test_frames_survive_any_fragmentation(sent: list[Frame], data: st.DataObject) -> None:
    line = b"".join(encode(frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(line)), max_size=5)))
    reader = FrameReader()
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(line)], strict=True):
        got += reader.feed(line[start:end])
    assert got == sent
    assert reader.corrupt == 0


@given(st.binary(max_size=600))
def test_noise_never_raises(noise: bytes) -> None:
    FrameReader().feed(noise + b"\0")
    decode(noise)


@given(frames, st.data())
def test_a_flipped_bit_is_noticed(frame: Frame, data: st.DataObject) -> None:
    line = bytearray(encode(frame)[1:-1])
    bit = data.draw(st.integers(0, 8 * len(line) - 1))
    line[bit // 8] ^= 1 << (bit % 8)
    for found in FrameReader().feed(bytes(line) + b"\0"):
        assert found != frame


def test_a_good_frame_follows_a_bad_one() -> None:
    frame = Frame(1, 2, b"abc")
    reader = FrameReader()
    assert reader.feed(b"\x05garbage\0" + encode(frame)) == [frame]
    assert reader.corrupt == 1


def test_endless_noise_is_bounded() -> None:
    reader = FrameReader()
    for _ in range(100):
        reader.feed(b"\x55" * 10_000)
    assert reader.corrupt > 0
    assert reader.feed(b"\0" + encode(Frame(1, 2, b"")))[-1] == Frame(1, 2, b"")


@given(st.binary(max_size=90))
def test_a_wrong_greeting_is_a_device_error(payload: bytes) -> None:
    try:
        hello = protocol.parse_hello(payload)
    except DeviceError:
        return
    assert payload[0] == protocol.VERSION
    assert len(payload) == 45 + len(hello.board)


def test_another_version_says_so() -> None:
    with pytest.raises(DeviceError, match="version 9"):
        protocol.parse_hello(b"\x09")


@given(st.binary(max_size=20))
def test_malformed_error_reports_and_spans_are_device_errors(payload: bytes) -> None:
    for parse, fits in ((protocol.parse_error, 13), (protocol.parse_spans, None)):
        good = len(payload) == fits if fits else len(payload) % 8 == 0
        if good:
            parse(payload)
        else:
            with pytest.raises(DeviceError):
                parse(payload)
