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

/* The longest wait for a FEED. The host sends its request again after at most 8 s of silence, and
 * that has a lost WANT sent again. */
#ifndef TD_FEED_MILLISECONDS
#define TD_FEED_MILLISECONDS 30000u
#endif
#define TD_FEED_TICKS ((uint64_t)TD_COUNTER_HZ * TD_FEED_MILLISECONDS / 1000u)

static td_frame frame;

/* The last INVOKE, STEP or BENCH that ran: a repeated request gets the same answer, not a second
 * run (inputs may have been overwritten in place). */
static struct {
    uint8_t kind; /* 0: none */
    uint8_t answer_kind;
    uint16_t sequence;
    uint32_t length;
    uint8_t answer[24];
} last;

/* Build the payload of an ERROR and return its length. */
static uint32_t error(uint8_t *payload, uint8_t code, uint32_t a, uint32_t b, uint32_t c)
{
    payload[0] = code;
    td_store32(payload + 1, a);
    td_store32(payload + 5, b);
    td_store32(payload + 9, c);
    return 13;
}

static void send_error(uint16_t sequence, uint8_t code, uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t length = error(td_frame_payload(&frame), code, a, b, c);
    td_frame_send(&frame, TD_ERROR, sequence, length);
}

static void send_answer(uint8_t kind, uint16_t sequence, uint32_t length)
{
    td_frame_send(&frame, (uint8_t)(kind | TD_ANSWER), sequence, length);
}

/* The request that is being carried out. */
static struct {
    uint8_t kind;
    uint16_t sequence;
    uint32_t fed;       /* FEEDs so far: the number of the next one */
    uint32_t wanted[3]; /* input, at, bytes */
} running;

void td_run_busy(uint32_t step)
{
    td_store32(td_frame_payload(&frame), step);
    td_frame_send(&frame, TD_BUSY, running.sequence, 4);
}

static void send_want(void)
{
    uint8_t *payload = td_frame_payload(&frame);
    td_store32(payload, running.fed);
    for (uint32_t i = 0; i < 3; i++) {
        td_store32(payload + 4u + 4u * i, running.wanted[i]);
    }
    td_frame_send(&frame, TD_WANT, running.sequence, 16);
}

/* Return the data of the FEED that is wanted; NULL when it does not come in time, or when a host
 * that knows of no run greets us. Whatever suggests that a frame was lost has the WANT sent again;
 * the number tells a FEED from one that came twice. */
static const uint8_t *wait_for_feed(void)
{
    const uint8_t *payload = td_frame_payload(&frame);
    uint64_t start = td_counter_read();
    send_want();
    for (uint8_t turn = 1; turn != 0 || td_counter_read() - start < TD_FEED_TICKS; turn++) {
        if (!td_link_ready()) {
            continue;
        }
        td_frame_state state = td_frame_accept(&frame, td_link_get());
        uint8_t kind = td_frame_kind(&frame);
        if (state == TD_FRAME_CORRUPT) {
            send_want();
        } else if (state == TD_FRAME_READY && kind == TD_HELLO) {
            return NULL;
        } else if (state == TD_FRAME_READY && td_frame_sequence(&frame) == running.sequence) {
            if (kind == running.kind) {
                send_want();
            } else if (kind == TD_FEED && td_frame_length(&frame) == 4u + running.wanted[2] &&
                       td_load32(payload) == running.fed) {
                return payload + 4;
            }
        }
    }
    return NULL;
}

int td_run_fetch(uint32_t input, uint32_t at, uint32_t bytes, int8_t *to)
{
    while (bytes != 0) {
        uint32_t count = bytes < TD_CHUNK_BYTES ? bytes : TD_CHUNK_BYTES;
        running.wanted[0] = input;
        running.wanted[1] = at;
        running.wanted[2] = count;
        const uint8_t *data = wait_for_feed();
        if (data == NULL) {
            return 0;
        }
        memcpy(to, data, count);
        running.fed++;
        at += count;
        to += count;
        bytes -= count;
    }
    return 1;
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

static int inside(uint32_t offset, uint32_t length, uint32_t first, uint32_t bytes)
{
    return length <= bytes && offset >= first && offset - first <= bytes - length;
}

/* Return where bytes at an offset are, all in one memory; NULL where there are none. */
static uint8_t *locate(uint32_t offset, uint32_t length)
{
    for (uint32_t i = 0; i < td_model.region_count; i++) {
        const td_region *region = td_model.regions + i;
        if (inside(offset, length, region->offset, region->bytes)) {
            return (uint8_t *)region->memory + (offset - region->offset);
        }
    }
    return inside(offset, length, 0, TD_ARENA_BYTES) ? td_arena + offset : NULL;
}

static uint32_t end_of_memory(void)
{
    if (td_model.region_count == 0) {
        return TD_ARENA_BYTES;
    }
    const td_region *final = td_model.regions + td_model.region_count - 1;
    return final->offset + final->bytes;
}

static void write_arena(uint16_t sequence, uint32_t length)
{
    uint32_t offset = td_load32(td_frame_payload(&frame));
    uint32_t count = length - 4u;
    if (td_model.input_count != 0 && td_model.inputs[0].offset == TD_STREAMED) {
        send_error(sequence, TD_ERROR_STREAMED, td_model.input_count, 0, 0);
        return;
    }
    uint8_t *place = locate(offset, count);
    if (count > TD_CHUNK_BYTES || place == NULL) {
        send_error(sequence, TD_ERROR_BOUNDS, offset, count, end_of_memory());
        return;
    }
    memcpy(place, td_frame_payload(&frame) + 4, count);
    send_answer(TD_WRITE, sequence, 0);
}

static void read_arena(uint16_t sequence)
{
    uint32_t offset = td_load32(td_frame_payload(&frame));
    uint32_t count = td_load32(td_frame_payload(&frame) + 4);
    const uint8_t *place = locate(offset, count);
    if (count > TD_CHUNK_BYTES || place == NULL) {
        send_error(sequence, TD_ERROR_BOUNDS, offset, count, end_of_memory());
        return;
    }
    memcpy(td_frame_payload(&frame), place, count);
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
    for (uint32_t i = 0; i < count && (i == 0 || !td_run_starved()); i++) {
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
        running.kind = kind;
        running.sequence = sequence;
        running.fed = 0;
        if (kind == TD_BENCH) {
            bench(argument);
        } else {
            td_store64(last.answer, kind == TD_STEP ? td_run_step(argument) : td_run_invoke());
            last.length = 8;
        }
        last.answer_kind = (uint8_t)(kind | TD_ANSWER);
        if (td_run_starved()) {
            last.answer_kind = TD_ERROR;
            last.length = error(last.answer, TD_ERROR_STARVED, running.wanted[0],
                                running.wanted[1], running.wanted[2]);
        }
        last.kind = kind;
        last.sequence = sequence;
    }
    memcpy(td_frame_payload(&frame), last.answer, last.length);
    td_frame_send(&frame, last.answer_kind, sequence, last.length);
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
    if (kind == TD_FEED) {
        return; /* one that came twice: the run it was for has ended */
    }
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
