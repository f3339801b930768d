"""The firmware's parser, compiled here under sanitizers, against hostile bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tinydeploy.build.firmware import firmware_files
from tinydeploy.targets import load_target

ARENA_BYTES = 300

# Feeds whole frames with random fields, mutated frames and noise; the sanitizers watch the edges
# of the arena and the frame buffer, the driver that every answer is well formed. With STREAMED, the
# model wants input, which comes right, damaged, twice, late or never: what it gets must be right.
DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_commands.h"
#include "td_firmware.h"
#include "td_platform.h"
#include "td_run.h"
#include "td_stack.h"

uint8_t td_arena[TD_ARENA_BYTES];
static const td_span spans[2] = {{0, 64}, {64, 64}};
static const td_span streamed[1] = {{TD_STREAMED, 6000}};
static unsigned fed, starved;
static uint8_t content(uint32_t at) { return (uint8_t)(at * 7u + at / 256u); }

static void step(void *arena, uint32_t index)
{
    static int8_t rows[6000];
    ((uint8_t *)arena)[index]++;
    if (STREAMED && index != 1) {
        uint32_t at = 100 * index, bytes = index == 2 ? 5000 : 40;
        memset(rows, 0, sizeof(rows));
        td_feed(NULL, 0, at, bytes, rows);
        fed += !td_run_starved();
        starved += td_run_starved() != 0;
        for (uint32_t i = 0; i < bytes && !td_run_starved(); i++) {
            if ((uint8_t)rows[i] != content(at + i)) {
                fputs("wrong input\n", stderr);
                exit(1);
            }
        }
    }
}

const td_firmware_model td_model = {
    {1, 2, 3}, 256, 4, 1, 2, STREAMED ? streamed : spans, spans, step};
const uint8_t td_counter_kind = TD_COUNTER_TIMER;
static uint64_t ticks;
void td_counter_resume(void) {}
void td_counter_pause(void) {}
uint64_t td_counter_read(void) { return ticks += 3; }
static uint8_t painted[64];
uint8_t *td_stack_bottom(void) { return painted; }
uint8_t *td_stack_top(void) { return painted + sizeof(painted); }

static uint8_t line[70000];
static size_t line_length;
static unsigned answers, errors, corrupt;
static td_frame answer;
static uint8_t want[16];
static uint16_t want_sequence;
static int wanted;

void td_link_put(uint8_t byte)
{
    switch (td_frame_accept(&answer, byte)) {
    case TD_FRAME_READY:
        if (td_frame_kind(&answer) == TD_WANT) {
            memcpy(want, td_frame_payload(&answer), sizeof(want));
            want_sequence = td_frame_sequence(&answer);
            wanted = 1;
            break;
        }
        answers++;
        errors += td_frame_kind(&answer) == TD_ERROR;
        corrupt += td_frame_kind(&answer) == TD_ERROR &&
                   td_frame_payload(&answer)[0] == TD_ERROR_CORRUPT;
        break;
    case TD_FRAME_CORRUPT: fputs("corrupt answer\n", stderr); exit(1);
    default: break;
    }
}
void td_link_flush(void) {}

static uint32_t state = 12345;
static uint32_t draw(uint32_t limit)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % limit;
}

/* Numbers near the limits are where checks fail. */
static uint32_t number(void)
{
    static const uint32_t odd[] = {0, 1, 3, 4, 63, 64, 255, 256, 299, 300, 301, 4095, 4096, 65535,
                                   0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF};
    return draw(2) ? odd[draw(sizeof(odd) / sizeof(odd[0]))] : draw(400);
}

/* COBS by the book, independent of the firmware's encoder. */
static void build(uint8_t kind, uint16_t sequence, const uint8_t *payload, uint32_t length, int lie)
{
    static uint8_t body[66000];
    body[0] = kind;
    td_store16(body + 1, sequence);
    td_store16(body + 3, (uint16_t)(lie ? number() : length));
    memcpy(body + 5, payload, length);
    uint32_t total = 5 + length;
    td_store32(body + total, td_crc32(body, total));
    total += 4;
    line_length = 0;
    size_t mark = line_length++;
    uint8_t code = 1;
    for (uint32_t i = 0; i < total; i++) {
        if (body[i] != 0) {
            line[line_length++] = body[i];
            code++;
        }
        if (body[i] == 0 || code == 0xFF) {
            line[mark] = code;
            code = 1;
            mark = line_length++;
        }
    }
    line[mark] = code;
    line[line_length++] = 0;
}

static void mutate(void)
{
    for (uint32_t n = 1 + draw(3); n > 0 && line_length > 1; n--) {
        size_t at = draw((uint32_t)line_length);
        switch (draw(3)) {
        case 0: line[at] = (uint8_t)draw(256); break;
        case 1: memmove(line + at, line + at + 1, --line_length - at); break;
        default: line[at] = 0; break;
        }
    }
}

/* Answer the last WANT somehow: the frames go to `reply`, by way of `line`. */
static uint8_t reply[20000];
static size_t reply_next, reply_end;

static void add_reply(uint8_t kind, uint16_t sequence, uint32_t number_, uint32_t length, int spoil)
{
    static uint8_t keep[70000], payload[5000];
    size_t kept = line_length;
    memcpy(keep, line, kept);
    td_store32(payload, number_);
    for (uint32_t i = 0; i < length; i++) {
        payload[4 + i] = content(td_load32(want + 8) + i);
    }
    if (spoil == 2) { /* a valid frame with other data, which only its fields can give away */
        memset(payload + 4, 0x55, length);
    }
    build(kind, sequence, payload, kind == TD_FEED ? 4 + length : 0, 0);
    if (spoil == 1) {
        line[draw((uint32_t)line_length - 1)] ^= (uint8_t)(1u << draw(8));
    }
    memcpy(reply + reply_end, line, line_length);
    reply_end += line_length;
    memcpy(line, keep, kept);
    line_length = kept;
}

static void answer_want(void)
{
    uint32_t number_ = td_load32(want), length = td_load32(want + 12);
    uint32_t how = draw(16);
    reply_next = reply_end = 0;
    wanted = 0;
    switch (how) {
    case 0: add_reply(TD_FEED, want_sequence, number_, length, 1); break; /* damaged */
    case 1: add_reply(TD_FEED, want_sequence, number_ - 1, length, 2); break; /* an old one */
    case 2: add_reply(TD_FEED, (uint16_t)(want_sequence + 1), number_, length, 2); break;
    case 3: add_reply(TD_FEED, want_sequence, number_, length - 1, 2); break;
    case 4: add_reply(TD_INVOKE, want_sequence, 0, 0, 0); break; /* the request again */
    case 5: if (draw(8) == 0) { add_reply(TD_HELLO, 0, 0, 0, 0); } break; /* else silence */
    case 6: add_reply(TD_STACK, want_sequence, 0, 0, 0); break;
    default: break;
    }
    if (how > 6 || (how < 5 && draw(4) != 0)) {
        for (uint32_t times = 1 + (draw(8) == 0); times > 0; times--) {
            add_reply(TD_FEED, want_sequence, number_, length, 0);
        }
    }
}

int td_link_ready(void)
{
    if (reply_next == reply_end && wanted) {
        answer_want();
    }
    ticks += reply_next == reply_end ? TD_COUNTER_HZ : 0;
    return reply_next != reply_end;
}

uint8_t td_link_get(void)
{
    return td_link_ready() ? reply[reply_next++] : (abort(), 0);
}

int main(int argument_count, char **arguments)
{
    static uint8_t payload[66000];
    unsigned strings = argument_count > 1 ? (unsigned)atoi(arguments[1]) : 0;
    td_run_init();
    for (unsigned i = 0; i < strings; i++) {
        uint32_t length = 0;
        for (uint32_t fields = draw(4); fields > 0; fields--, length += 4) {
            td_store32(payload + length, number());
        }
        length += draw(4) == 0 ? draw(i % 50 == 0 ? 5000 : 300) : 0;
        if (length > 16) {
            for (uint32_t k = 12; k < length; k++) {
                payload[k] = (uint8_t)draw(256);
            }
        }
        uint8_t kind = (uint8_t)(draw(8) ? 1 + draw(11) : draw(256));
        static const uint8_t right[] = {0, 1, 3, 20, 8, 0, 8, 4, 0, 4, 30};
        if (kind < sizeof(right) && draw(2)) {
            length = right[kind];
        }
        build(kind, (uint16_t)draw(3), payload, length, draw(10) == 0);
        if (draw(3) == 0) {
            mutate();
        } else if (draw(20) == 0) {
            for (size_t k = 0; k < line_length; k++) {
                line[k] = (uint8_t)draw(256);
            }
        }
        for (size_t k = 0; k < line_length; k++) {
            td_commands_accept(line[k]);
        }
        while (reply_next != reply_end) { /* what came twice */
            td_commands_accept(reply[reply_next++]);
        }
    }
    printf("%u %u %u %u %u\n", answers, errors, corrupt, fed, starved);
    return 0;
}
"""


def write_sources(folder: Path) -> None:
    files = firmware_files(load_target("host"), (), arena_bytes=ARENA_BYTES)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (folder / "driver.c").write_text(DRIVER)


@pytest.mark.parametrize(("streamed", "strings"), [(0, 100_000), (1, 30_000)])
def test_hostile_bytes_never_leave_the_arena(tmp_path: Path, streamed: int, strings: int) -> None:
    write_sources(tmp_path)
    own = [f"firmware/td_{part}.c" for part in ("frame", "commands", "run", "stack")]
    flags = ["-std=c99", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(
        ["gcc", *flags, f"-DSTREAMED={streamed}", "-Ifirmware", *own, "driver.c", "-o", "fuzz"],
        cwd=tmp_path,
        check=True,
        timeout=120,
    )
    result = subprocess.run(
        [tmp_path / "fuzz", str(strings)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    answers, errors, corrupt, fed, starved = map(int, result.stdout.split())
    # All paths were walked: results, refusals and requests to send again.
    assert answers > strings // 2
    assert answers - errors > strings // 20
    assert errors - corrupt > strings // 20
    assert corrupt > strings // 20
    if streamed:
        assert fed > strings // 20
        assert starved > strings // 1_000


def test_clang_finds_nothing_to_warn_about(tmp_path: Path) -> None:
    """Builds use gcc; the firmware's portable part is clean C99 for another compiler, too."""
    write_sources(tmp_path)
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wcast-qual", "-Werror"]
    sources = sorted(path.name for path in (tmp_path / "firmware").glob("*.c"))
    assert len(sources) >= 8
    subprocess.run(
        ["clang", "-std=c99", "-fsyntax-only", *warnings, "-I.", *sources],
        cwd=tmp_path / "firmware",
        check=True,
        timeout=120,
    )
