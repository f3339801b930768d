/* What the portable firmware asks of a board: a byte link, a counter, a stack and a way to start. */
#ifndef TD_PLATFORM_H
#define TD_PLATFORM_H

#include <stdbool.h>
#include <stdint.h>

#include "td_board.h"

#define TD_REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* How ticks relate to work; the numbers travel in the HELLO answer. */
enum {
    TD_COUNTER_TIMER = 0,       /* a timer of fixed frequency: ticks at TD_COUNTER_HZ */
    TD_COUNTER_CYCLES = 1,      /* mcycle: core cycles (instructions where the emulator says so) */
    TD_COUNTER_NANOSECONDS = 2, /* wall-clock time of a process on the host */
};

/* drivers/setup_*.c: clocks (the core at TD_CLOCK_HZ), power and pins. */
void td_setup_init(void);

/* drivers/link_*.c: bytes to and from the host. */
void td_link_init(void);
int td_link_ready(void);           /* is there a byte? */
uint8_t td_link_get(void);         /* wait for a byte */
void td_link_put(uint8_t byte);    /* wait for room, then send */
void td_link_flush(void);          /* a frame is complete: let it go */

/* drivers/uart_*.c: the same over a board's serial port. */
void td_uart_init(void);
int td_uart_ready(void);
uint8_t td_uart_get(void);
void td_uart_put(uint8_t byte);

/* drivers/counter_*.c */
extern const uint8_t td_counter_kind;
void td_counter_init(void);
void td_counter_resume(void);      /* model code is about to run: start a tick, keep the count */
void td_counter_pause(void);       /* the link is about to be served */
uint64_t td_counter_read(void);

/* drivers/mark_*.c: raise a pin while an inference runs (true), for a power analyser, else lower it.
 * Weak in td_run.c, where it does nothing; also called once, with false, before the first run. */
void td_mark(bool running);

/* arch: the stack grows down from td_stack_top() to td_stack_bottom(). */
uint8_t *td_stack_bottom(void);
uint8_t *td_stack_top(void);

/* The arena, in the section that the linker script places. */
extern uint8_t td_arena[TD_ARENA_BYTES];

/* td_main.c: never returns. */
void td_main(void);

#endif
