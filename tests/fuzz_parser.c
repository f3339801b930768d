/* The firmware's parser under libFuzzer: what it is fed never reaches outside of the arena.
 *
 * An input is records: how it goes on the line, its length, its bytes. They go there as they are, or
 * framed with a right CRC, which chance would not find. A run that wants input reads on. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "td_commands.h"
#include "td_firmware.h"
#include "td_platform.h"
#include "td_run.h"
#include "td_stack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

uint8_t td_arena[TD_ARENA_BYTES];
static const td_span spans[2] = {{0, 64}, {64, 64}};
static const td_span streamed[1] = {{TD_STREAMED, 600}};

static void step(void *arena, uint32_t index)
{
    static int8_t rows[600];
    ((uint8_t *)arena)[index]++;
    if (STREAMED && index != 1) {
        td_feed(NULL, 0, 10 * index, index == 2 ? 560 : 40, rows);
    }
}

const td_firmware_model td_model = {
    {1, 2, 3}, 256, 4, 1, 2, STREAMED ? streamed : spans, spans, step, NULL, 0};
const uint8_t td_counter_kind = TD_COUNTER_TIMER;
static uint64_t ticks;
void td_counter_resume(void) {}
void td_counter_pause(void) {}
uint64_t td_counter_read(void) { return ticks += 3; }
static uint8_t painted[64];
uint8_t *td_stack_bottom(void) { return painted; }
uint8_t *td_stack_top(void) { return painted + sizeof(painted); }

/* Every answer is a whole frame. */
static td_frame answer;
void td_link_put(uint8_t byte)
{
    if (td_frame_accept(&answer, byte) == TD_FRAME_CORRUPT) {
        abort();
    }
}
void td_link_flush(void) {}

static const uint8_t *rest;
static size_t left;
static uint8_t line[600];
static size_t next, end;

static void take_record(void)
{
    next = end = 0;
    uint8_t how = *rest++;
    left--;
    size_t count = 0;
    if (left != 0) {
        count = *rest++;
        left--;
        count = count < left ? count : left;
    }
    if (how & 1u) {
        memcpy(line, rest, count);
        end = count;
    } else if (count >= 3) {
        uint8_t body[300] = {rest[0], rest[1], rest[2]};
        size_t payload = count - 3;
        td_store16(body + 3, (uint16_t)(how & 2u ? rest[2] : payload));
        memcpy(body + 5, rest + 3, payload);
        td_store32(body + 5 + payload, td_crc32(body, (uint32_t)(5 + payload)));
        size_t mark = end++;
        for (size_t i = 0; i < payload + 9; i++) {
            if (body[i] != 0) {
                line[end++] = body[i];
            }
            if (body[i] == 0 || end - mark == 0xFF) {
                line[mark] = (uint8_t)(end - mark);
                mark = end++;
            }
        }
        line[mark] = (uint8_t)(end - mark);
        line[end++] = 0;
    }
    rest += count;
    left -= count;
}

int td_link_ready(void)
{
    while (next == end && left != 0) {
        take_record();
    }
    ticks += next == end ? TD_COUNTER_HZ : 0;
    return next != end;
}

uint8_t td_link_get(void)
{
    return td_link_ready() ? line[next++] : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rest = data;
    left = size;
    next = end = 0;
    td_frame_reset(&answer);
    while (td_link_ready()) {
        td_commands_accept(line[next++]);
    }
    for (unsigned i = 0; i < 2; i++) {
        td_commands_accept(0); /* what is left of a frame is no part of the next input */
    }
    return 0;
}
