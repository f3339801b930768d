/* 16550 UART with byte-wide registers and FIFOs of 16 bytes.
 *
 * Registers: National Semiconductor PC16550D data sheet, section 8. */
#include "td_platform.h"

#define REGISTER8(offset) (*(volatile uint8_t *)(uintptr_t)(TD_UART_BASE + (offset)))
#define DATA REGISTER8(0u)
#define INTERRUPTS REGISTER8(1u)
#define FIFO_CONTROL REGISTER8(2u)
#define LINE_CONTROL REGISTER8(3u)
#define LINE_STATUS REGISTER8(5u)

#define FIFO_ENABLE_TRIGGER_14 0xC7u /* and clear both */
#define LINE_8N1 0x03u
#define STATUS_DATA_READY 0x01u
#define STATUS_TX_EMPTY 0x20u

void td_uart_init(void)
{
    INTERRUPTS = 0;
    LINE_CONTROL = LINE_8N1;
    FIFO_CONTROL = FIFO_ENABLE_TRIGGER_14;
    (void)DATA; /* what came before; QEMU then asks its line for more */
}

int td_uart_ready(void)
{
    return (LINE_STATUS & STATUS_DATA_READY) != 0;
}

uint8_t td_uart_get(void)
{
    while (!td_uart_ready()) {
    }
    return DATA;
}

void td_uart_put(uint8_t byte)
{
    while ((LINE_STATUS & STATUS_TX_EMPTY) == 0) {
    }
    DATA = byte;
}
