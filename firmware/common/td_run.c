/* Read the counter around each step of the model. */
#include "td_run.h"

#include "td_firmware.h"
#include "td_platform.h"

/* Silence longer than this is broken between two steps by a BUSY frame. */
#define TD_BUSY_TICKS (TD_COUNTER_HZ / 4u)

/* For boards without a driver for the pin. */
__attribute__((weak)) void td_mark(bool running)
{
    (void)running;
}

static uint32_t ticks_of_step[TD_MAX_STEPS];
static uint32_t overhead; /* ticks between two readings with nothing in between */
static uint64_t silent; /* ticks run since the host last heard from us */
static uint64_t elsewhere; /* ticks of this step spent on getting its input */
static int starved;
static int finished;

void td_run_init(void)
{
    uint64_t least = UINT64_MAX;
    td_mark(false);
    td_counter_resume();
    for (uint32_t i = 0; i < 8; i++) {
        uint64_t start = td_counter_read();
        uint64_t elapsed = td_counter_read() - start;
        least = elapsed < least ? elapsed : least;
    }
    td_counter_pause();
    overhead = (uint32_t)least;
}

static uint64_t count_step(uint32_t index)
{
    elsewhere = overhead;
    uint64_t start = td_counter_read();
    td_model.step(td_arena, index);
    uint64_t elapsed = td_counter_read() - start;
    return elapsed > elsewhere ? elapsed - elsewhere : 0;
}

void td_feed(void *unused, uint32_t input, uint32_t at, uint32_t bytes, int8_t *to)
{
    uint64_t start = td_counter_read();
    (void)unused;
    starved = starved || !td_run_fetch(input, at, bytes, to);
    silent = 0;
    td_counter_resume();
    elsewhere += td_counter_read() - start + overhead;
}

uint64_t td_run_step(uint32_t index)
{
    starved = 0;
    td_counter_resume();
    uint64_t ticks = count_step(index);
    td_counter_pause();
    return ticks;
}

uint64_t td_run_invoke(void)
{
    uint64_t total = 0;
    finished = 0;
    starved = 0;
    td_mark(true);
    td_counter_resume();
    for (uint32_t i = 0; i < td_model.step_count && !starved; i++) {
        uint64_t ticks = count_step(i);
        ticks_of_step[i] = ticks < UINT32_MAX ? (uint32_t)ticks : UINT32_MAX;
        total += ticks;
        silent += ticks;
        if (silent > TD_BUSY_TICKS) {
            silent = 0;
            td_run_busy(i);
        }
    }
    td_counter_pause();
    td_mark(false);
    finished = !starved;
    return total;
}

int td_run_starved(void)
{
    return starved;
}

int td_run_finished(void)
{
    return finished;
}

uint32_t td_run_ticks(uint32_t index)
{
    return ticks_of_step[index];
}
