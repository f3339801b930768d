"""The firmware's parser under libFuzzer with ASan and UBSan, starting from real frames."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from firmware_models import ARENA_BYTES, INPUT, OUTPUT, SOURCES
from test_protocol_fuzz import write_sources

from tinydeploy.build.firmware import build_firmware
from tinydeploy.run import protocol
from tinydeploy.run.device import Device
from tinydeploy.run.host import start_host
from tinydeploy.run.protocol import Frame, FrameReader
from tinydeploy.run.transport import Transport
from tinydeploy.targets import load_target

HARNESS = Path(__file__).parents[1] / "fuzz_parser.c"


class Recording:
    """Keep what the host sends."""

    def __init__(self, inner: Transport) -> None:
        self.inner, self.sent = inner, b""

    def read(self, timeout: float) -> bytes:
        return self.inner.read(timeout)

    def write(self, data: bytes) -> None:
        self.sent += data
        self.inner.write(data)

    def close(self) -> None:
        self.inner.close()


def real_frames(folder: Path) -> list[Frame]:
    """Return what a host says to a device in a session that uses every request."""
    firmware = build_firmware(SOURCES, load_target("host"), ARENA_BYTES, folder)
    transport, process = start_host(firmware.elf)
    line = Recording(transport)
    with Device(line, process=process) as device:
        device.write(0, bytes(range(128)))
        device.invoke()
        device.step(1)
        device.bench(2)
        device.stack_used()
        device.read(*OUTPUT)
        device.write(INPUT[0], bytes(INPUT[1]))
    return FrameReader().feed(line.sent)


def record(how: int, content: bytes) -> bytes:
    """Return one record of the harness's input."""
    return bytes([how, len(content)]) + content


def write_corpus(folder: Path, frames: list[Frame]) -> None:
    folder.mkdir()
    (folder / "empty").write_bytes(b"")
    session = b""
    feed = Frame(protocol.FEED, frames[-1].sequence, bytes(44))
    for number, frame in enumerate([*frames, feed]):
        body = bytes([frame.kind]) + frame.sequence.to_bytes(2, "little") + frame.payload
        raw = protocol.encode(frame)
        framed = record(0, body)
        session += framed
        (folder / f"framed{number}").write_bytes(framed)
        (folder / f"raw{number}").write_bytes(record(1, raw))
    (folder / "session").write_bytes(session)


def fuzz(folder: Path, streamed: int, inputs: int) -> None:
    write_sources(folder)
    frames = real_frames(folder / "host")
    assert {frame.kind for frame in frames} >= set(range(protocol.HELLO, protocol.BENCH + 1))
    write_corpus(folder / "corpus", frames)
    own = [f"firmware/td_{part}.c" for part in ("frame", "commands", "run", "stack")]
    flags = ["-std=c99", "-O1", "-g", "-fsanitize=fuzzer,address,undefined",
             "-fno-sanitize-recover=all", f"-DSTREAMED={streamed}", "-Ifirmware"]  # fmt: skip
    subprocess.run(
        ["clang", *flags, *own, str(HARNESS), "-o", "fuzz"], cwd=folder, check=True, timeout=120
    )
    options = [f"-runs={inputs}", "-seed=1", "-max_len=400", "-print_final_stats=1", "-timeout=10"]
    result = subprocess.run(
        ["./fuzz", *options, "corpus"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=1_800,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3_000:]
    units = re.search(r"number_of_executed_units:\s*(\d+)", result.stderr)
    covered = re.findall(r"cov: (\d+)", result.stderr)
    assert units and int(units[1]) >= inputs
    assert int(covered[-1]) > 150  # edges: the fuzzer went into the commands, not past them
    assert len(list((folder / "corpus").iterdir())) > 2 * len(frames) + 10  # it found new paths


@pytest.mark.parametrize(("streamed", "inputs"), [(0, 40_000), (1, 15_000)])
def test_the_parser_survives(tmp_path: Path, streamed: int, inputs: int) -> None:
    fuzz(tmp_path, streamed, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [0, 1])
def test_the_parser_survives_a_million(tmp_path: Path, streamed: int) -> None:
    fuzz(tmp_path, streamed, 1_000_000)
