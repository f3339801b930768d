/* The cycle counter of an ESP32-C3, which has no mcycle: 32 bits, extended to 64.
 *
 * "ESP32-C3 Technical Reference Manual" v1.1, section 1.4: mpcer, mpcmr, mpccr. The 32 bits last
 * 107 s at 40 MHz; a step longer than that between two readings would be counted short. */
#include "td_platform.h"

const uint8_t td_counter_kind = TD_COUNTER_CYCLES;
static uint32_t last;
static uint32_t high;

void td_counter_init(void)
{
    __asm volatile("csrwi 0x7e0, 1\n\t" /* mpcer: cycles */
                   "csrwi 0x7e1, 1\n\t" /* mpcmr: count, wrap at the end */
                   "csrwi 0x7e2, 0");   /* mpccr */
}

void td_counter_resume(void)
{
}

void td_counter_pause(void)
{
}

uint64_t td_counter_read(void)
{
    uint32_t now;
    __asm volatile("csrr %0, 0x7e2" : "=r"(now));
    if (now < last) {
        high++;
    }
    last = now;
    return ((uint64_t)high << 32) | now;
}
