"""A board, or an emulator behind a port: right results, sane figures, and no way to upset it."""

from __future__ import annotations

import random
import struct
import time

import pytest
from hardware_board import Board

from tinydeploy import profiling
from tinydeploy.errors import DeviceError
from tinydeploy.run import protocol
from tinydeploy.run.device import Device
from tinydeploy.run.protocol import Frame, encode
from tinydeploy.verify.compare import verify, write_inputs
from tinydeploy.verify.samples import random_samples


def exact(board: Board, device: Device, samples: int, seed: int) -> bool:
    p = board.prepared
    chosen = random_samples(p.graph, samples, seed)
    return verify(device, p.graph, p.plan, p.profile, chosen).bit_exact


def test_it_says_who_it_is(board: Board, device: Device) -> None:
    hello = device.hello()
    assert hello.board == board.target.name
    assert hello.digest == board.firmware.digest
    assert hello.stack_bytes == board.target.stack_bytes
    assert hello.step_count == len(board.prepared.plan.segments)


def test_every_output_is_exact(board: Board, device: Device) -> None:
    assert exact(board, device, samples=4, seed=1)


def test_the_profile_adds_up(board: Board) -> None:
    samples = random_samples(board.prepared.graph, 1)
    measured, profile = profiling.measure(
        board.prepared, board.firmware, board.target, samples, 5, board.place
    )
    assert measured.verdict.bit_exact
    assert profile.runs == 5 and profile.total.least > 0
    assert all(n.count.least <= n.count.median <= n.count.most for n in profile.nodes)
    steps = sum(node.count.least for node in profile.nodes)
    assert steps <= profile.total.least <= profile.total.most
    # The same work every time: what differs is interrupts, caches and the counter's grain.
    assert profile.total.most <= 1.1 * profile.total.least + 1_000
    shown = profile.milliseconds(profile.total.median)
    assert (shown is not None) == (profile.unit == "cycles")


def test_the_benchmark_agrees_with_the_profile(board: Board, device: Device) -> None:
    p = board.prepared
    streamed = write_inputs(device, p.graph, p.plan, random_samples(p.graph, 1).inputs[0])
    total = sum(device.invoke(streamed))
    bench = device.bench(3, streamed)
    assert bench.least <= bench.total // 3 <= bench.most
    assert bench.total / 3 == pytest.approx(total, rel=0.1, abs=1_000)


def test_the_stack_is_enough(board: Board, device: Device) -> None:
    assert exact(board, device, samples=1, seed=2)
    assert 0 < device.stack_used() < 0.9 * board.target.stack_bytes


@pytest.mark.parametrize("offset", [2**32 - 1, 2**32 - 4, 2**31])
def test_what_is_outside_of_its_memory_is_refused(device: Device, offset: int) -> None:
    with pytest.raises(DeviceError, match="outside of its memory"):
        device.read(offset, 4)
    with pytest.raises(DeviceError, match=r"outside of its memory|refuses to have inputs written"):
        device.write(offset, bytes(4))


def test_requests_that_make_no_sense_are_refused(board: Board, device: Device) -> None:
    device.hello()
    with pytest.raises(DeviceError, match="does not know requests of kind 77"):
        device._request(77, b"")
    with pytest.raises(DeviceError, match="expects 4 bytes and got 5"):
        device._request(protocol.STEP, bytes(5))
    with pytest.raises(DeviceError, match="outside"):
        device.step(2**32 - 1)
    with pytest.raises(DeviceError, match="10,000"):
        device._request(protocol.BENCH, struct.pack("<I", 10_001))
    assert exact(board, device, samples=1, seed=3)


def test_noise_does_not_upset_it(board: Board, device: Device) -> None:
    device.hello()
    source = random.Random(4)
    good = encode(Frame(protocol.READ, 1, struct.pack("<II", 0, 16)))
    for _ in range(20):
        spoilt = bytearray(good)
        spoilt[source.randrange(len(spoilt))] ^= 1 << source.randrange(8)
        device._transport.write(source.randbytes(40) + bytes(spoilt))
    assert exact(board, device, samples=1, seed=5)


def test_a_long_run_stays_exact(board: Board, device: Device) -> None:
    """Many inferences on changing inputs; each output is compared, the stack does not grow."""
    assert exact(board, device, samples=1, seed=6)
    stack, started = device.stack_used(), time.monotonic()
    assert exact(board, device, samples=board.runs, seed=7)
    assert device.stack_used() <= stack + 64
    assert time.monotonic() - started < 10 * board.runs + 60
