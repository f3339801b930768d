/* Carry out the host's requests on the model and its arena, and nothing outside of them. */
#include "td_commands.h"

#include <string.h>

#include "td_firmware.h"
#include "td_platform.h"
#include "td_run.h"
#include "td_stack.h"

/* The longest answer besides data: the greeting with a board's name. */
#define TD_HELLO_FIELDS 45u
typedef char td_hello_fits[TD_HELLO_FIELDS + sizeof(TD_BOARD_NAME) <= TD_PAYLOAD_BYTES ? 1 : -1];

#define TD_MOST_RUNS 10000u /* of one BENCH: the line is deaf meanwhile */

static td_frame frame;

/* The last INVOKE, STEP or BENCH that ran: a repeated request gets the same answer, not a second
 * run (inputs may have been overwritten in place). */
static struct {
    uint8_t kind; /* 0: none */
    uint16_t sequence;
    uint32_t length;
    uint8_t answer[24];
} last;

static void send_error(uint16_t sequence, uint8_t code, uint32_t a, uint32_t b, uint32_t c)
{
    uint8_t *payload = td_frame_payload(&frame);
    payload[0] = code;
    td_store32(payload + 1, a);
    td_store32(payload + 5, b);
    td_store32(payload + 9, c);
    td_frame_send(&frame, TD_ERROR, sequence, 13);
}

static void send_answer(uint8_t kind, uint16_t sequence, uint32_t length)
{
    td_frame_send(&frame, (uint8_t)(kind | TD_ANSWER), sequence, length);
}

static uint16_t running;

void td_run_busy(uint32_t step)
{
    td_store32(td_frame_payload(&frame), step);
    td_frame_send(&frame, TD_BUSY, running, 4);
}

static void hello(uint16_t sequence)
{
    static const char name[] = TD_BOARD_NAME;
    uint8_t *payload = td_frame_payload(&frame);
    uint32_t name_bytes = (uint32_t)sizeof(name) - 1u;
    payload[0] = TD_PROTOCOL_VERSION;
    payload[1] = td_counter_kind;
    td_store16(payload + 2, TD_CHUNK_BYTES);
    memcpy(payload + 4, td_model.digest, 16);
    td_store32(payload + 20, TD_ARENA_BYTES);
    td_store32(payload + 24, td_model.step_count);
    td_store32(payload + 28, td_model.input_count);
    td_store32(payload + 32, td_model.output_count);
    td_store32(payload + 36, TD_COUNTER_HZ);
    td_store32(payload + 40, td_stack_reserved());
    payload[TD_HELLO_FIELDS - 1u] = (uint8_t)name_bytes;
    memcpy(payload + TD_HELLO_FIELDS, name, name_bytes);
    last.kind = 0; /* a new session: its sequence numbers start anywhere */
    send_answer(TD_HELLO, sequence, TD_HELLO_FIELDS + name_bytes);
}

static void spans(uint16_t sequence)
{
    uint8_t *payload = td_frame_payload(&frame);
    const td_span *table = payload[0] ? td_model.outputs : td_model.inputs;
    uint32_t total = payload[0] ? td_model.output_count : td_model.input_count;
    uint32_t first = td_load16(payload + 1);
    if (first > total) {
        send_error(sequence, TD_ERROR_BOUNDS, first, 0, total);
        return;
    }
    uint32_t count = total - first;
    if (count > TD_CHUNK_BYTES / 8u) {
        count = TD_CHUNK_BYTES / 8u;
    }
    for (uint32_t i = 0; i < count; i++) {
        td_store32(payload + 8u * i, table[first + i].offset);
        td_store32(payload + 8u * i + 4u, table[first + i].bytes);
    }
    send_answer(TD_SPANS, sequence, 8u * count);
}

static int inside(uint32_t offset, uint32_t length)
{
    return length <= (uint32_t)TD_ARENA_BYTES && offset <= (uint32_t)TD_ARENA_BYTES - length;
}

static void write_arena(uint16_t sequence, uint32_t length)
{
    uint32_t offset = td_load32(td_frame_payload(&frame));
    uint32_t count = length - 4u;
    if (count > TD_CHUNK_BYTES || !inside(offset, count)) {
        send_error(sequence, TD_ERROR_BOUNDS, offset, count, TD_ARENA_BYTES);
        return;
    }
    memcpy(td_arena + offset, td_frame_payload(&frame) + 4, count);
    send_answer(TD_WRITE, sequence, 0);
}

static void read_arena(uint16_t sequence)
{
    uint32_t offset = td_load32(td_frame_payload(&frame));
    uint32_t count = td_load32(td_frame_payload(&frame) + 4);
    if (count > TD_CHUNK_BYTES || !inside(offset, count)) {
        send_error(sequence, TD_ERROR_BOUNDS, offset, count, TD_ARENA_BYTES);
        return;
    }
    memcpy(td_frame_payload(&frame), td_arena + offset, count);
    send_answer(TD_READ, sequence, count);
}

static void counters(uint16_t sequence)
{
    uint32_t first = td_load32(td_frame_payload(&frame));
    uint32_t count = td_load32(td_frame_payload(&frame) + 4);
    uint32_t total = td_model.step_count;
    if (!td_run_finished()) {
        send_error(sequence, TD_ERROR_NOTHING, 0, 0, 0);
    } else if (count > TD_CHUNK_BYTES / 4u || count > total || first > total - count) {
        send_error(sequence, TD_ERROR_BOUNDS, first, count, total);
    } else {
        for (uint32_t i = 0; i < count; i++) {
            td_store32(td_frame_payload(&frame) + 4u * i, td_run_ticks(first + i));
        }
        send_answer(TD_COUNTERS, sequence, 4u * count);
    }
}

static void stack(uint16_t sequence)
{
    td_store32(td_frame_payload(&frame), td_stack_used());
    td_store32(td_frame_payload(&frame) + 4, td_stack_reserved());
    send_answer(TD_STACK, sequence, 8);
}

static void bench(uint32_t count)
{
    uint64_t least = UINT64_MAX;
    uint64_t most = 0;
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t ticks = td_run_invoke();
        least = ticks < least ? ticks : least;
        most = ticks > most ? ticks : most;
        total += ticks;
    }
    td_store64(last.answer, least);
    td_store64(last.answer + 8, most);
    td_store64(last.answer + 16, total);
    last.length = 24;
}

static void run(uint8_t kind, uint16_t sequence)
{
    uint32_t argument = td_load32(td_frame_payload(&frame)); /* unused by INVOKE */
    if (kind != last.kind || sequence != last.sequence) {
        if (td_model.arena_bytes > (uint32_t)TD_ARENA_BYTES) {
            send_error(sequence, TD_ERROR_ARENA, td_model.arena_bytes, TD_ARENA_BYTES, 0);
            return;
        }
        if (td_model.step_count > TD_MAX_STEPS) {
            send_error(sequence, TD_ERROR_STEPS, td_model.step_count, TD_MAX_STEPS, 0);
            return;
        }
        if (kind == TD_STEP && argument >= td_model.step_count) {
            send_error(sequence, TD_ERROR_BOUNDS, argument, 1, td_model.step_count);
            return;
        }
        if (kind == TD_BENCH && (argument == 0 || argument > TD_MOST_RUNS)) {
            send_error(sequence, TD_ERROR_BOUNDS, argument, 1, TD_MOST_RUNS);
            return;
        }
        running = sequence;
        if (kind == TD_BENCH) {
            bench(argument);
        } else {
            td_store64(last.answer, kind == TD_STEP ? td_run_step(argument) : td_run_invoke());
            last.length = 8;
        }
        last.kind = kind;
        last.sequence = sequence;
    }
    memcpy(td_frame_payload(&frame), last.answer, last.length);
    send_answer(kind, sequence, last.length);
}

/* The payload length that a request must have; WRITE takes this or more. */
static int expected_length(uint8_t kind, uint32_t *length)
{
    static const uint8_t lengths[] = {
        [TD_HELLO] = 1, [TD_SPANS] = 3,    [TD_WRITE] = 4, [TD_READ] = 8,  [TD_INVOKE] = 0,
        [TD_COUNTERS] = 8, [TD_STEP] = 4, [TD_STACK] = 0, [TD_BENCH] = 4,
    };
    if (kind < TD_HELLO || kind > TD_BENCH) {
        return 0;
    }
    *length = lengths[kind];
    return 1;
}

static void carry_out(void)
{
    uint8_t kind = td_frame_kind(&frame);
    uint16_t sequence = td_frame_sequence(&frame);
    uint32_t length = td_frame_length(&frame);
    uint32_t expected;
    if (!expected_length(kind, &expected)) {
        send_error(sequence, TD_ERROR_UNKNOWN, kind, 0, 0);
        return;
    }
    if (kind == TD_WRITE ? length < expected : length != expected) {
        send_error(sequence, TD_ERROR_LENGTH, expected, length, 0);
        return;
    }
    switch (kind) {
    case TD_HELLO: hello(sequence); break;
    case TD_SPANS: spans(sequence); break;
    case TD_WRITE: write_arena(sequence, length); break;
    case TD_READ: read_arena(sequence); break;
    case TD_COUNTERS: counters(sequence); break;
    case TD_STACK: stack(sequence); break;
    default: run(kind, sequence); break; /* INVOKE, STEP, BENCH */
    }
}

void td_commands_accept(uint8_t byte)
{
    switch (td_frame_accept(&frame, byte)) {
    case TD_FRAME_READY: carry_out(); break;
    case TD_FRAME_CORRUPT: send_error(0, TD_ERROR_CORRUPT, 0, 0, 0); break;
    default: break;
    }
}

void td_commands_fault(uint32_t cause, uint32_t program_counter, uint32_t status)
{
    for (;;) {
        send_error(0, TD_ERROR_FAULT, cause, program_counter, status);
        td_frame_reset(&frame);
        while (td_frame_accept(&frame, td_link_get()) == TD_FRAME_NONE) {
        }
    }
}
