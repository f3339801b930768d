/* A 16 MHz, 32-bit timer of an nRF51, which has no SysTick and runs its core at 16 MHz.
 *
 * Registers: "nRF51 Series Reference Manual" v3.0, section 19. The 32 bits last 268 s; a run
 * longer than that between two readings would be counted short. */
#include "td_platform.h"

#define START TD_REGISTER(TD_COUNTER_BASE + 0x000u)
#define STOP TD_REGISTER(TD_COUNTER_BASE + 0x004u)
#define CLEAR TD_REGISTER(TD_COUNTER_BASE + 0x00Cu)
#define CAPTURE0 TD_REGISTER(TD_COUNTER_BASE + 0x040u)
#define MODE TD_REGISTER(TD_COUNTER_BASE + 0x504u)
#define BIT_MODE TD_REGISTER(TD_COUNTER_BASE + 0x508u)
#define PRESCALER TD_REGISTER(TD_COUNTER_BASE + 0x510u)
#define CC0 TD_REGISTER(TD_COUNTER_BASE + 0x540u)

#define BIT_MODE_32 3u

const uint8_t td_counter_kind = TD_COUNTER_TIMER;
static uint32_t last;
static uint32_t high;

void td_counter_init(void)
{
    STOP = 1;
    MODE = 0; /* timer */
    BIT_MODE = BIT_MODE_32;
    PRESCALER = 0; /* 16 MHz */
    CLEAR = 1;
    START = 1;
}

/* A tick begins here, so that equal work gives equal counts. */
void td_counter_resume(void)
{
    STOP = 1;
    START = 1;
}

void td_counter_pause(void)
{
}

uint64_t td_counter_read(void)
{
    CAPTURE0 = 1;
    uint32_t now = CC0;
    if (now < last) {
        high++;
    }
    last = now;
    return ((uint64_t)high << 32) | now;
}
