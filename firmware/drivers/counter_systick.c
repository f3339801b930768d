/* SysTick, 24 bits at the core clock, extended to 64 by its interrupt.
 *
 * Registers: "ARMv7-M Architecture Reference Manual" (DDI 0403), B3.3; ARMv6-M (DDI 0419), B3.3. */
#include "td_platform.h"

#define SYST_CSR TD_REGISTER(0xE000E010u)
#define SYST_RVR TD_REGISTER(0xE000E014u)
#define SYST_CVR TD_REGISTER(0xE000E018u)
#define SCB_ICSR TD_REGISTER(0xE000ED04u)

#define ICSR_PENDSTSET (1u << 26)
#define PERIOD 0x1000000u
#define HOLD 6u /* core clock, interrupt */
#define RUN 7u

const uint8_t td_counter_kind = TD_COUNTER_TIMER;
static volatile uint32_t periods;

void td_systick_interrupt(void);
void td_systick_interrupt(void)
{
    periods++;
}

void td_counter_init(void)
{
    SYST_RVR = PERIOD - 1u;
    SYST_CVR = 0;
    SYST_CSR = RUN;
}

/* The interrupt is taken only while the model runs: the link is served undisturbed. A tick begins
 * here where ticks are longer than cycles, so that equal work gives equal counts. */
void td_counter_resume(void)
{
    SYST_CSR = HOLD;
    SYST_CSR = RUN;
    __asm volatile("cpsie i" ::: "memory");
}

void td_counter_pause(void)
{
    __asm volatile("cpsid i" ::: "memory");
}

uint64_t td_counter_read(void)
{
    uint32_t high;
    uint32_t value;
    do {
        high = periods;
        value = SYST_CVR;
        /* A wrap between the two lines is pending here for a few cycles or already counted. */
    } while ((SCB_ICSR & ICSR_PENDSTSET) != 0 || high != periods);
    return (uint64_t)high * PERIOD + (PERIOD - 1u - value);
}
