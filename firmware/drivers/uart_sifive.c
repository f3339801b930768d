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

/* Looking takes the byte, so it is kept here. */
static uint32_t received = FULL_OR_EMPTY;

int td_uart_ready(void)
{
    if ((received & FULL_OR_EMPTY) != 0) {
        received = RX_DATA;
    }
    return (received & FULL_OR_EMPTY) == 0;
}

uint8_t td_uart_get(void)
{
    while (!td_uart_ready()) {
    }
    uint8_t byte = (uint8_t)received;
    received = FULL_OR_EMPTY;
    return byte;
}

void td_uart_put(uint8_t byte)
{
    while ((TX_DATA & FULL_OR_EMPTY) != 0) {
    }
    TX_DATA = byte;
}
