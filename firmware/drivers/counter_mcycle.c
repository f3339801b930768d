/* mcycle, 64 bits: core cycles on a chip; QEMU's -icount makes it count instructions.
 *
 * "The RISC-V Instruction Set Manual, Volume II: Privileged Architecture", 3.1.10. */
#include "td_platform.h"

const uint8_t td_counter_kind = TD_COUNTER_CYCLES;

void td_counter_init(void)
{
}

void td_counter_resume(void)
{
}

void td_counter_pause(void)
{
}

uint64_t td_counter_read(void)
{
    uint32_t high;
    uint32_t low;
    uint32_t again;
    do {
        __asm volatile("csrr %0, mcycleh" : "=r"(high));
        __asm volatile("csrr %0, mcycle" : "=r"(low));
        __asm volatile("csrr %0, mcycleh" : "=r"(again));
    } while (high != again);
    return ((uint64_t)high << 32) | low;
}
