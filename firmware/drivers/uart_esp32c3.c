/* UART of an ESP32-C3, clocked by the crystal: FIFOs of 128 bytes. The boot code sets the pins.
 *
 * Registers: "ESP32-C3 Technical Reference Manual" v1.1, chapter 26. */
#include "td_platform.h"

#define FIFO TD_REGISTER(TD_UART_BASE + 0x00u)
#define CLKDIV TD_REGISTER(TD_UART_BASE + 0x14u)
#define STATUS TD_REGISTER(TD_UART_BASE + 0x1Cu)
#define CONF0 TD_REGISTER(TD_UART_BASE + 0x20u)
#define CLK_CONF TD_REGISTER(TD_UART_BASE + 0x78u)
#define ID TD_REGISTER(TD_UART_BASE + 0x80u)

#define CONF0_8N1 (1u << 28 | 3u << 2 | 1u << 4) /* memory clock; 8 bits, one stop bit */
#define CLOCKS_FROM_CRYSTAL (1u << 25 | 1u << 24 | 1u << 22 | 3u << 20) /* RX, TX, all; undivided */
#define ID_UPDATE (1u << 31) /* carries the registers over into the UART's own clock */
#define FIFO_BYTES 128u
#define WAIT_LIMIT 100000u

void td_uart_init(void)
{
    uint32_t divisor = (TD_UART_CLOCK_HZ * 16u + TD_UART_BAUD / 2u) / TD_UART_BAUD; /* in 1/16 */
    CLK_CONF = CLOCKS_FROM_CRYSTAL;
    CLKDIV = divisor >> 4 | (divisor & 15u) << 20;
    CONF0 = CONF0_8N1;
    ID |= ID_UPDATE;
    for (uint32_t i = 0; i < WAIT_LIMIT && (ID & ID_UPDATE) != 0; i++) {
    }
}

int td_uart_ready(void)
{
    return (STATUS & 0x3FFu) != 0;
}

uint8_t td_uart_get(void)
{
    while (!td_uart_ready()) {
    }
    return (uint8_t)FIFO;
}

void td_uart_put(uint8_t byte)
{
    while (((STATUS >> 16) & 0x3FFu) >= FIFO_BYTES - 1u) {
    }
    FIFO = byte;
}
