/* Reset and traps of a RISC-V core in machine mode. */
#include <stdint.h>
#include <string.h>

#include "td_commands.h"
#include "td_platform.h"
#include "td_semihosting.h"

#define GUARD_BYTES 0x8000u
#define VECTOR_ALIGNMENT 256 /* of mtvec; the most that any core wants: ESP32-C3 */

/* Placed by the linker script. */
extern uint8_t td_link_stack_bottom[], td_link_stack_top[];
extern uint8_t td_link_data_start[], td_link_data_end[], td_link_data_image[];
extern uint8_t td_link_code_start[], td_link_code_end[], td_link_code_image[];
extern uint8_t td_link_bss_start[], td_link_bss_end[];

void td_reset(void);
void td_start(void);
void td_trap(void);
void td_trap_report(uint32_t stack_pointer);

uint8_t *td_stack_bottom(void)
{
    return td_link_stack_bottom;
}

uint8_t *td_stack_top(void)
{
    return td_link_stack_top;
}

__attribute__((naked, section(".vectors"), used)) void td_reset(void)
{
    /* Some parts start in a second mapping of the flash: go on at the address it is linked to. */
    __asm volatile(".option push\n\t"
                   ".option norelax\n\t"
                   "lui t0, %hi(1f)\n\t"
                   "jalr zero, %lo(1f)(t0)\n"
                   "1:\n\t"
                   "la gp, __global_pointer$\n\t"
                   ".option pop\n\t"
                   "la sp, td_link_stack_top\n\t"
                   "la t0, td_trap\n\t"
                   "csrw mtvec, t0\n\t"
                   "csrw mie, zero\n\t"
                   "tail td_start");
}

/* Make a stack that overflows fault, where the memory below it would take the bytes: a locked
 * region without rights ("Volume II: Privileged Architecture", 3.7). */
static void guard_stack(void)
{
    uint32_t guard = (uint32_t)(uintptr_t)td_link_stack_bottom - GUARD_BYTES;
    if (guard % GUARD_BYTES == 0) {
        uint32_t address = guard >> 2 | (GUARD_BYTES / 8u - 1u);
        uint32_t locked_power_of_two = 0x98u;
        __asm volatile("csrw pmpaddr0, %0\n\tcsrw pmpcfg0, %1" ::"r"(address),
                       "r"(locked_power_of_two)
                       : "t0", "memory");
    }
}

/* Whether td_trap goes on behind an instruction that traps, one of four bytes, or reports it. */
static void skip_traps(uint32_t skip)
{
    __asm volatile("csrw mscratch, %0" ::"r"(skip) : "memory");
}

/* Count cycles and instructions, which a core that saves power does not unless told to
 * (mcountinhibit, the same volume, 3.1.12). */
static void start_counters(void)
{
    __asm volatile("csrw 0x320, zero" ::: "t0", "memory");
}

/* Vector instructions trap until mstatus.VS is not "off": "Vector Extension", 3.2. */
static void enable_vectors(void)
{
#if defined(TD_VECTOR) || defined(__riscv_vector)
    uint32_t initial = 1u << 9;
    __asm volatile("csrs mstatus, %0" ::"r"(initial));
#endif
}

void td_start(void)
{
    skip_traps(1); /* not every core has the registers of the next two */
    guard_stack();
    start_counters();
    skip_traps(0);
    enable_vectors();
    memcpy(td_link_data_start, td_link_data_image, (size_t)(td_link_data_end - td_link_data_start));
    memcpy(td_link_code_start, td_link_code_image, (size_t)(td_link_code_end - td_link_code_start));
    __asm volatile("fence" ::: "memory");
    memset(td_link_bss_start, 0, (size_t)(td_link_bss_end - td_link_bss_start));
    td_main();
}

/* Three instructions that mean a call only together, uncompressed and within one page: "RISC-V
 * Semihosting" (riscv-non-isa), section 2. */
__attribute__((noinline, aligned(16))) uint32_t td_semihosting_call(uint32_t operation,
                                                                    const void *arguments)
{
    register uint32_t a0 __asm("a0") = operation;
    register const void *a1 __asm("a1") = arguments;
    __asm volatile(".option push\n\t"
                   ".option norvc\n\t"
                   ".balign 16\n\t"
                   "slli zero, zero, 0x1f\n\t"
                   "ebreak\n\t"
                   "srai zero, zero, 7\n\t"
                   ".option pop"
                   : "+r"(a0)
                   : "r"(a1)
                   : "memory");
    return a0;
}

/* Interrupts are off, so every trap is an exception: report it on a fresh stack. */
__attribute__((naked, aligned(VECTOR_ALIGNMENT), section(".vectors.trap"))) void td_trap(void)
{
    __asm volatile("csrr t0, mscratch\n\t"
                   "beqz t0, 1f\n\t"
                   "csrr t0, mepc\n\t"
                   "addi t0, t0, 4\n\t"
                   "csrw mepc, t0\n\t"
                   "mret\n"
                   "1:\n\t"
                   "mv a0, sp\n\t"
                   "la sp, td_link_stack_top\n\t"
                   "tail td_trap_report");
}

void td_trap_report(uint32_t stack_pointer)
{
    uint32_t cause;
    uint32_t program_counter;
    uint32_t value;
    __asm volatile("csrr %0, mcause" : "=r"(cause));
    __asm volatile("csrr %0, mepc" : "=r"(program_counter));
    __asm volatile("csrr %0, mtval" : "=r"(value));
    int overflow = stack_pointer < (uintptr_t)td_link_stack_bottom;
    td_commands_fault(overflow ? 1u : 0x100u | cause, program_counter, value);
}
