"""Hand-written models that exercise the firmware without a code generator."""

from __future__ import annotations

DIGEST = bytes(range(1, 17))
ARENA_BYTES = 2_048
INPUT, OUTPUT = (0, 64), (64, 64)

# Places in the arena that steer the model.
CRASH = 128  # u8: 1 runs an invalid instruction, 2 uses up the stack
LOOPS = 132  # u32: turns of step 1, two instructions each
INVOKES = 136  # u32: how often step 0 ran
STEPS = 4

FIRMWARE_MODEL = r"""
#include "td_firmware.h"

#include <string.h>

static const td_span inputs[1] = {{0, 64}};
static const td_span outputs[1] = {{64, 64}};
static const uint8_t weights[256] = {1, 2, 3};

static uint32_t load(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, 4);
    return value;
}

static void loop(uint32_t turns)
{
    if (turns == 0) {
        return;
    }
#if defined(__arm__)
    __asm volatile(".syntax unified\n1:\n\tsubs %0, %0, #1\n\tbne 1b" : "+l"(turns)::"cc");
#elif defined(__riscv)
    __asm volatile("1:\n\taddi %0, %0, -1\n\tbnez %0, 1b" : "+r"(turns));
#endif
}

__attribute__((noinline)) static uint32_t use_stack(uint8_t seed)
{
    volatile uint8_t block[1000];
    uint32_t sum = 0;
    for (uint32_t i = 0; i < sizeof(block); i++) {
        block[i] = (uint8_t)(weights[i & 255] + seed);
    }
    for (uint32_t i = 0; i < sizeof(block); i++) {
        sum += block[i];
    }
    return sum;
}

__attribute__((noinline)) static uint32_t exhaust(uint32_t depth)
{
    volatile uint32_t keep[16];
    keep[depth & 15] = depth;
    return depth == 0xFFFFFFFF ? 0 : exhaust(depth + 1) + keep[depth & 15];
}

__attribute__((noinline)) void crash_here(uint8_t how);
void crash_here(uint8_t how)
{
    if (how == 1) {
        __builtin_trap();
    } else if (how == 2) {
        volatile uint32_t sink = exhaust(0);
        (void)sink;
    }
}

static void step(void *arena, uint32_t index)
{
    uint8_t *bytes = arena;
    if (index == 0) {
        uint32_t count = load(bytes + 136) + 1;
        memcpy(bytes + 136, &count, 4);
        for (uint32_t i = 0; i < 64; i++) {
            bytes[64 + i] = (uint8_t)(bytes[i] * 2 + 1);
        }
    } else if (index == 1) {
        loop(load(bytes + 132));
    } else if (index == 2) {
        bytes[140] = (uint8_t)use_stack(bytes[0]);
    } else {
        crash_here(bytes[128]);
    }
}

const td_firmware_model td_model = {
    {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, 256, 4, 1, 1, inputs, outputs, step,
};
"""

SOURCES = {"firmware_model.c": FIRMWARE_MODEL.encode()}

# A model that asks for its inputs: 100 bytes at a time, the last 1,000 in one piece, or in two.
FEEDS = 64  # u32 in the arena: how often step 0 ran
STREAMED_MODEL = r"""
#include "td_firmware.h"

#include <string.h>

static const td_span inputs[2] = {{TD_STREAMED, 5000}, {TD_STREAMED, 40}};
static const td_span outputs[1] = {{0, 64}};

static void mix(uint8_t *sums, uint32_t at, const int8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *sum = sums + (at + i) % 64;
        *sum = (uint8_t)(*sum * 3 + (uint8_t)bytes[i]);
    }
}

static void step(void *arena, uint32_t index)
{
    static int8_t row[4500];
    uint8_t *bytes = arena;
    uint32_t count;
    if (index == 0) {
        memset(bytes, 0, 64);
        for (uint32_t at = 0; at < 500; at += 100) {
            td_feed(NULL, 0, at, 100, row);
            mix(bytes, at, row, 100);
        }
        td_feed(NULL, 0, 500, 4500, row);
        mix(bytes, 500, row, 4500);
        memcpy(&count, bytes + 64, 4);
        count++;
        memcpy(bytes + 64, &count, 4);
    } else {
        td_feed(NULL, 1, 0, 10, row);
        td_feed(NULL, 1, 10, 30, row + 10);
        mix(bytes, 0, row, 40);
    }
}

const td_firmware_model td_model = {
    {2, 2, 3}, 256, 2, 2, 1, inputs, outputs, step,
};
"""
STREAMED_SOURCES = {"firmware_model.c": STREAMED_MODEL.encode()}


def streamed_output(first: bytes, second: bytes) -> bytes:
    """Return what the model above makes of its inputs."""
    sums = bytearray(64)
    for data in (first, second):
        for at, byte in enumerate(data):
            sums[at % 64] = (sums[at % 64] * 3 + byte) & 255
    return bytes(sums)
