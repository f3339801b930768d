/* The board's link: its UART, or the emulator's own channel when an emulator asks for it.
 *
 * Emulated UARTs hold a byte or a few, and the emulator hands its threads over for each: 4 to
 * 30 kB/s measured. By semihosting, whole frames cross in one call, over a megabyte per second.
 * The frames are the same. The emulator's standard input and output are the two ends.
 *
 * "Semihosting for AArch32 and AArch64" (Arm IHI 0100), section 5; RISC-V uses the same calls. */
#include <string.h>

#include "td_platform.h"
#include "td_semihosting.h"

#define SYS_OPEN 0x01u
#define SYS_WRITE 0x05u
#define SYS_READ 0x06u
#define SYS_EXIT 0x18u
#define OPEN_READ_BINARY 1u
#define OPEN_WRITE_BINARY 5u
#define STOPPED_APPLICATION_EXIT 0x20026u

/* Never written here and not cleared at reset: an emulator stores these two words before it
 * starts (-device loader), a chip's RAM does not hold them by chance. */
#define TD_EMULATED_0 0x746E7964u
#define TD_EMULATED_1 0x79706564u
uint32_t td_emulated[2] __attribute__((section(".bss.td_noinit")));

static int emulated;
static uint8_t incoming[128], outgoing[128];
static uint32_t incoming_next, incoming_end, outgoing_end;
static uint32_t input_handle, output_handle;

static uint32_t open_file(const char *name, uint32_t mode)
{
    uint32_t arguments[3] = {(uint32_t)(uintptr_t)name, mode, (uint32_t)strlen(name)};
    return td_semihosting_call(SYS_OPEN, arguments);
}

/* The other end is gone: so is the emulator. */
static void hang_up(void)
{
    for (;;) {
        (void)td_semihosting_call(SYS_EXIT, (const void *)(uintptr_t)STOPPED_APPLICATION_EXIT);
    }
}

void td_link_init(void)
{
    const volatile uint32_t *choice = td_emulated;
    emulated = choice[0] == TD_EMULATED_0 && choice[1] == TD_EMULATED_1;
    if (!emulated) {
        td_uart_init();
        return;
    }
    input_handle = open_file("/dev/fd/0", OPEN_READ_BINARY);
    output_handle = open_file("/dev/fd/1", OPEN_WRITE_BINARY);
    if (input_handle == UINT32_MAX || output_handle == UINT32_MAX) {
        hang_up();
    }
}

/* The emulator's channel has no question for it: a read there waits, with the clock stopped, for as
 * long as the host lives. */
int td_link_ready(void)
{
    return emulated || td_uart_ready();
}

uint8_t td_link_get(void)
{
    if (!emulated) {
        return td_uart_get();
    }
    while (incoming_next == incoming_end) {
        uint32_t arguments[3] = {input_handle, (uint32_t)(uintptr_t)incoming, sizeof(incoming)};
        uint32_t missing = td_semihosting_call(SYS_READ, arguments); /* bytes not read */
        if (missing >= sizeof(incoming)) {
            hang_up();
        }
        incoming_next = 0;
        incoming_end = sizeof(incoming) - missing;
    }
    return incoming[incoming_next++];
}

void td_link_flush(void)
{
    if (emulated && outgoing_end != 0) {
        uint32_t arguments[3] = {output_handle, (uint32_t)(uintptr_t)outgoing, outgoing_end};
        if (td_semihosting_call(SYS_WRITE, arguments) != 0) {
            hang_up();
        }
        outgoing_end = 0;
    }
}

void td_link_put(uint8_t byte)
{
    if (!emulated) {
        td_uart_put(byte);
        return;
    }
    if (outgoing_end == sizeof(outgoing)) {
        td_link_flush();
    }
    outgoing[outgoing_end++] = byte;
}
