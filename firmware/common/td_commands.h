/* The messages that the host sends and the answers it gets. */
#ifndef TD_COMMANDS_H
#define TD_COMMANDS_H

#include <stdint.h>

#include "td_frame.h"

#define TD_PROTOCOL_VERSION 2u

/* Requests; an answer's kind is the request's with TD_ANSWER set. All integers little endian. */
enum {
    TD_HELLO = 0x01,    /* version u8 -> who is here */
    TD_SPANS = 0x02,    /* output u8, first u16 -> (offset u32, bytes u32) ... */
    TD_WRITE = 0x03,    /* offset u32, data -> nothing */
    TD_READ = 0x04,     /* offset u32, length u32 -> data */
    TD_INVOKE = 0x05,   /* nothing -> total ticks u64 */
    TD_COUNTERS = 0x06, /* first u32, count u32 -> ticks u32 ... of the last invoke */
    TD_STEP = 0x07,     /* index u32 -> ticks u64 */
    TD_STACK = 0x08,    /* nothing -> high-water bytes u32, reserved bytes u32 */
    TD_BENCH = 0x09,    /* count u32 -> least u64, most u64, total u64 */
    TD_FEED = 0x0A,     /* number u32, data: what the WANT of this number asks for; no answer */
    TD_ANSWER = 0x80,
    TD_WANT = 0xFD,  /* number, input, at, bytes, four u32: the run needs this FEED to go on */
    TD_BUSY = 0xFE,  /* step u32: still running */
    TD_ERROR = 0xFF, /* code u8, three u32 of detail */
};

enum {
    TD_ERROR_LENGTH = 1,   /* expected, got */
    TD_ERROR_BOUNDS = 2,   /* offset or index, length, limit */
    TD_ERROR_UNKNOWN = 3,  /* kind */
    TD_ERROR_CORRUPT = 4,  /* a frame was dropped: send it again */
    TD_ERROR_FAULT = 5,    /* cause, program counter, status */
    TD_ERROR_ARENA = 6,    /* the model's arena, the firmware's */
    TD_ERROR_STEPS = 7,    /* the model's steps, the firmware's counters */
    TD_ERROR_NOTHING = 8,  /* counters asked for before an invoke */
    TD_ERROR_STARVED = 9,  /* input, at, bytes that did not come: the run was given up */
    TD_ERROR_STREAMED = 10, /* the arena has no inputs to write: they are FEEDs */
};

/* Feed one byte of the line; a complete frame is carried out and answered. */
void td_commands_accept(uint8_t byte);

/* Tell the host of a processor fault, now and at each frame that it sends; never returns. */
void td_commands_fault(uint32_t cause, uint32_t program_counter, uint32_t status);

#endif
