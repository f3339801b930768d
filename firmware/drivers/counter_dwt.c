/* The cycle counter of the DWT unit, 32 bits, extended to 64.
 *
 * Registers: "ARMv7-M Architecture Reference Manual" (DDI 0403), C1.8; the lock: "Arm CoreSight
 * Architecture Specification" (IHI 0029), B2.3.10, which only a Cortex-M7 has here. */
#include "td_platform.h"

#define SYST_CSR TD_REGISTER(0xE000E010u)
#define SYST_RVR TD_REGISTER(0xE000E014u)
#define SYST_CVR TD_REGISTER(0xE000E018u)
#define DWT_CTRL TD_REGISTER(0xE0001000u)
#define DWT_CYCCNT TD_REGISTER(0xE0001004u)
#define DWT_LAR TD_REGISTER(0xE0001FB0u)
#define DEMCR TD_REGISTER(0xE000EDFCu)

#define DEMCR_TRACE_ENABLE (1u << 24)
#define UNLOCK 0xC5ACCE55u

const uint8_t td_counter_kind = TD_COUNTER_CYCLES;
static volatile uint32_t last;
static volatile uint32_t high;

static uint64_t extended(void)
{
    uint32_t now = DWT_CYCCNT;
    if (now < last) {
        high++;
    }
    last = now;
    return ((uint64_t)high << 32) | now;
}

/* Looks often enough, 256 times in a turn of the counter, that no turn is missed. */
void td_systick_interrupt(void);
void td_systick_interrupt(void)
{
    (void)extended();
}

void td_counter_init(void)
{
    DEMCR |= DEMCR_TRACE_ENABLE;
    DWT_LAR = UNLOCK;
    DWT_CYCCNT = 0;
    DWT_CTRL |= 1u;
    SYST_RVR = 0xFFFFFFu;
    SYST_CVR = 0;
    SYST_CSR = 7u; /* core clock, interrupt, enabled */
}

void td_counter_resume(void)
{
    __asm volatile("cpsie i" ::: "memory");
}

void td_counter_pause(void)
{
    __asm volatile("cpsid i" ::: "memory");
}

uint64_t td_counter_read(void)
{
    uint32_t masked;
    __asm volatile("mrs %0, primask\n\tcpsid i" : "=r"(masked)::"memory");
    uint64_t now = extended();
    __asm volatile("msr primask, %0" ::"r"(masked) : "memory");
    return now;
}
