/* SiFive UART: FIFOs of 8 bytes.
 *
 * Registers: "SiFive FE310-G002 Manual" v1p5, chapter 18. */
#include "td_platform.h"

#define TX_DATA TD_REGISTER(TD_UART_BASE + 0x00u)
#define RX_DATA TD_REGISTER(TD_UART_BASE + 0x04u)
#define TX_CONTROL TD_REGISTER(TD_UART_BASE + 0x08u)
#define RX_CONTROL TD_REGISTER(TD_UART_BASE + 0x0Cu)
#define DIVISOR TD_REGISTER(TD_UART_BASE + 0x18u)

#define FULL_OR_EMPTY 0x80000000u
#define ENABLE 1u

void td_uart_init(void)
{
    DIVISOR = (TD_UART_CLOCK_HZ + TD_UART_BAUD / 2u) / TD_UART_BAUD - 1u;
    TX_CONTROL = ENABLE;
    RX_CONTROL = ENABLE;
}

uint8_t td_uart_get(void)
{
    uint32_t data;
    do {
        data = RX_DATA;
    } while ((data & FULL_OR_EMPTY) != 0);
    return (uint8_t)data;
}

void td_uart_put(uint8_t byte)
{
    while ((TX_DATA & FULL_OR_EMPTY) != 0) {
    }
    TX_DATA = byte;
}
