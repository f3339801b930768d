/* USART of an STM32F1/F2/F4 or GD32VF103: one byte of buffer each way.
 *
 * Registers: ST RM0090 (STM32F405), section 30.6. */
#include "td_platform.h"

#define SR TD_REGISTER(TD_UART_BASE + 0x00u)
#define DR TD_REGISTER(TD_UART_BASE + 0x04u)
#define BRR TD_REGISTER(TD_UART_BASE + 0x08u)
#define CR1 TD_REGISTER(TD_UART_BASE + 0x0Cu)

#define SR_RX_NOT_EMPTY (1u << 5)
#define SR_TX_EMPTY (1u << 7)
#define CR1_ENABLE (1u << 13)
#define CR1_TX_ENABLE (1u << 3)
#define CR1_RX_ENABLE (1u << 2)

void td_uart_init(void)
{
    BRR = (TD_UART_CLOCK_HZ + TD_UART_BAUD / 2u) / TD_UART_BAUD; /* 1/16 bit units, 16 samples */
    CR1 = CR1_ENABLE | CR1_TX_ENABLE | CR1_RX_ENABLE;
    (void)DR; /* what came before; QEMU then asks its line for more */
}

int td_uart_ready(void)
{
    return (SR & SR_RX_NOT_EMPTY) != 0;
}

uint8_t td_uart_get(void)
{
    while (!td_uart_ready()) {
    }
    return (uint8_t)DR; /* SR then DR: clears an overrun, too */
}

void td_uart_put(uint8_t byte)
{
    while ((SR & SR_TX_EMPTY) == 0) {
    }
    DR = byte;
}
