/* Reset, vectors and faults of a Cortex-M core (ARMv6-M to ARMv8.1-M). */
#include <stdint.h>
#include <string.h>

#include "td_commands.h"
#include "td_platform.h"
#include "td_semihosting.h"

/* System control block, "ARMv7-M Architecture Reference Manual" (DDI 0403), B3.2.2. */
#define SCB_VTOR TD_REGISTER(0xE000ED08u)
#define SCB_CFSR TD_REGISTER(0xE000ED28u)
#define SCB_CPACR TD_REGISTER(0xE000ED88u)

#define CFSR_STACKING (1u << 4 | 1u << 12 | 1u << 20) /* MSTKERR, STKERR, STKOF */

/* Memory protection unit of ARMv7-M, the same manual, B3.5; ARMv6-M has the same or none (type 0). */
#define MPU_TYPE TD_REGISTER(0xE000ED90u)
#define MPU_CTRL TD_REGISTER(0xE000ED94u)
#define MPU_RNR TD_REGISTER(0xE000ED98u)
#define MPU_RBAR TD_REGISTER(0xE000ED9Cu)
#define MPU_RASR TD_REGISTER(0xE000EDA0u)

/* Interrupt enables: ARMv7-M, B3.4. */
#define NVIC_ICER(index) TD_REGISTER(0xE000E180u + 4u * (index))

/* Caches of a Cortex-M7: ARMv7-M, B4.8 and B2.2.7. */
#define SCB_CCR TD_REGISTER(0xE000ED14u)
#define SCB_CLIDR TD_REGISTER(0xE000ED78u)
#define SCB_CCSIDR TD_REGISTER(0xE000ED80u)
#define SCB_CSSELR TD_REGISTER(0xE000ED84u)
#define SCB_ICIALLU TD_REGISTER(0xE000EF50u)
#define SCB_DCISW TD_REGISTER(0xE000EF60u)
#define CCR_CACHES (1u << 17 | 1u << 16)
#define CLIDR_SEPARATE 3u /* level 1 has an instruction and a data cache */

#define GUARD_BYTES 0x8000u

/* Placed by the linker script. */
extern uint8_t td_link_stack_bottom[], td_link_stack_top[];
extern uint8_t td_link_data_start[], td_link_data_end[], td_link_data_image[];
extern uint8_t td_link_code_start[], td_link_code_end[], td_link_code_image[];
extern uint8_t td_link_bss_start[], td_link_bss_end[];

typedef struct {
    uint8_t *stack_top;
    void (*handlers[15])(void);
} td_vector_table;

void td_reset(void);
void td_hard_fault(void);
void td_fault_report(const uint32_t *frame);
void td_systick_interrupt(void);
static void unexpected(void);

/* The counter driver overrides this where it uses SysTick. */
__attribute__((weak)) void td_systick_interrupt(void)
{
}

extern const td_vector_table td_vectors;
__attribute__((section(".vectors"), used)) const td_vector_table td_vectors = {
    td_link_stack_top,
    {
        td_reset,
        unexpected, /* NMI */
        td_hard_fault,
        td_hard_fault, /* MemManage, Bus, Usage and Secure faults escalate unless enabled */
        td_hard_fault,
        td_hard_fault,
        td_hard_fault,
        0,
        0,
        0,
        unexpected, /* SVCall */
        unexpected, /* debug monitor */
        0,
        unexpected, /* PendSV */
        td_systick_interrupt,
    },
};

uint8_t *td_stack_bottom(void)
{
    return td_link_stack_bottom;
}

uint8_t *td_stack_top(void)
{
    return td_link_stack_top;
}

/* Make a stack that overflows fault, where the memory below it would take the bytes. */
static void guard_stack(void)
{
#if defined(__ARM_ARCH_8M_MAIN__) || defined(__ARM_ARCH_8_1M_MAIN__)
    __asm volatile("msr msplim, %0" ::"r"(td_link_stack_bottom));
#else
    uint32_t guard = (uint32_t)(uintptr_t)td_link_stack_bottom - GUARD_BYTES;
    if (((MPU_TYPE >> 8) & 0xFFu) != 0 && guard % GUARD_BYTES == 0) {
        MPU_RNR = 0;
        MPU_RBAR = guard;
        MPU_RASR = 1u << 28 | 14u << 1 | 1u; /* no access, no execution, 2^15 bytes, enabled */
        MPU_CTRL = 5u; /* elsewhere the default map; off in the hard fault handler */
        __asm volatile("dsb\n\tisb" ::: "memory");
    }
#endif
}

/* Switch on the caches, where there are any; what they hold after power-up is garbage. */
static void enable_caches(void)
{
#if defined(__ARM_ARCH_7EM__)
    if ((SCB_CLIDR & 7u) != CLIDR_SEPARATE || (SCB_CCR & CCR_CACHES) != 0) {
        return;
    }
    SCB_CSSELR = 0; /* the data cache of level 1 */
    __asm volatile("dsb" ::: "memory");
    uint32_t last_set = (SCB_CCSIDR >> 13) & 0x7FFFu;
    for (uint32_t set = 0; set <= last_set; set++) {
        for (uint32_t way = 0; way < 4; way++) {
            SCB_DCISW = way << 30 | set << 5; /* 4 ways, lines of 32 bytes: Cortex-M7 manual, 5.7 */
        }
    }
    SCB_ICIALLU = 0;
    __asm volatile("dsb\n\tisb" ::: "memory");
    SCB_CCR |= CCR_CACHES;
    __asm volatile("dsb\n\tisb" ::: "memory");
#endif
}

/* A boot loader may have left interrupts on, and there are no handlers for them here. */
static void disable_interrupts(void)
{
    __asm volatile("cpsid i");
#if defined(__ARM_ARCH_6M__)
    NVIC_ICER(0) = UINT32_MAX;
#else
    for (uint32_t i = 0; i < 8; i++) {
        NVIC_ICER(i) = UINT32_MAX;
    }
#endif
}

void td_reset(void)
{
    disable_interrupts();
    enable_caches();
#if !defined(__ARM_ARCH_6M__)
    SCB_VTOR = (uint32_t)(uintptr_t)&td_vectors;
    /* Full access to coprocessors 10 and 11: the vector and floating-point registers. */
    SCB_CPACR |= 0xFu << 20;
    __asm volatile("dsb\n\tisb" ::: "memory");
#endif
    guard_stack();
    memcpy(td_link_data_start, td_link_data_image, (size_t)(td_link_data_end - td_link_data_start));
    memcpy(td_link_code_start, td_link_code_image, (size_t)(td_link_code_end - td_link_code_start));
    __asm volatile("dsb\n\tisb" ::: "memory");
    memset(td_link_bss_start, 0, (size_t)(td_link_bss_end - td_link_bss_start));
    td_main();
}

uint32_t td_semihosting_call(uint32_t operation, const void *arguments)
{
    register uint32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = arguments;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void unexpected(void)
{
    td_commands_fault(0xFFFFFFFFu, 0, 0);
}

/* Called on a fresh stack; `frame` is where the stack pointer was: r0-r3, r12, lr, pc, xpsr. */
void td_fault_report(const uint32_t *frame)
{
    uintptr_t address = (uintptr_t)frame;
    uint32_t status = 0;
#if !defined(__ARM_ARCH_6M__)
    status = SCB_CFSR;
    int overflow = address < (uintptr_t)td_link_stack_bottom || (status & CFSR_STACKING) != 0;
#else
    int overflow = address < (uintptr_t)td_link_stack_bottom;
#endif
    /* A frame outside of the stack must not be read: a second fault would lock the core up. */
    int readable = !overflow && address + 32u <= (uintptr_t)td_link_stack_top;
    td_commands_fault(overflow ? 1u : 3u, readable ? frame[6] : 0u, status);
}

__attribute__((naked)) void td_hard_fault(void)
{
    __asm volatile("mrs r0, msp\n\t"
                   "ldr r1, =td_link_stack_top\n\t"
                   "mov sp, r1\n\t"
                   "ldr r1, =td_fault_report\n\t"
                   "bx r1\n\t"
                   ".ltorg");
}
