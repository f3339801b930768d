/* Arm CMSDK APB UART: one byte of buffer each way.
 *
 * Registers: "Cortex-M System Design Kit Technical Reference Manual" (DDI 0479), 4.3. */
#include "td_platform.h"

#define DATA TD_REGISTER(TD_UART_BASE + 0x00u)
#define STATE TD_REGISTER(TD_UART_BASE + 0x04u)
#define CTRL TD_REGISTER(TD_UART_BASE + 0x08u)
#define BAUDDIV TD_REGISTER(TD_UART_BASE + 0x10u)

#define STATE_TX_FULL 1u
#define STATE_RX_FULL 2u
#define CTRL_TX_ENABLE 1u
#define CTRL_RX_ENABLE 2u

void td_uart_init(void)
{
    BAUDDIV = TD_UART_CLOCK_HZ / TD_UART_BAUD;
    CTRL = CTRL_TX_ENABLE | CTRL_RX_ENABLE;
}

int td_uart_ready(void)
{
    return (STATE & STATE_RX_FULL) != 0;
}

uint8_t td_uart_get(void)
{
    while (!td_uart_ready()) {
    }
    return (uint8_t)DATA;
}

void td_uart_put(uint8_t byte)
{
    while ((STATE & STATE_TX_FULL) != 0) {
    }
    DATA = byte;
}
