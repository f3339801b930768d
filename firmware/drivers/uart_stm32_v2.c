/* USART of an STM32F0/F3/F7/G/H/L/U/W: one byte of buffer each way, as at reset.
 *
 * Registers: ST RM0385 (STM32F746), section 31.8; RM0433 (STM32H743), 48.7; RM0456 (STM32U575),
 * 66.8: the same offsets and bits as far as they are used here. */
#include "td_platform.h"

#define CR1 TD_REGISTER(TD_UART_BASE + 0x00u)
#define BRR TD_REGISTER(TD_UART_BASE + 0x0Cu)
#define ISR TD_REGISTER(TD_UART_BASE + 0x1Cu)
#define ICR TD_REGISTER(TD_UART_BASE + 0x20u)
#define RDR TD_REGISTER(TD_UART_BASE + 0x24u)
#define TDR TD_REGISTER(TD_UART_BASE + 0x28u)

#define ISR_RX_NOT_EMPTY (1u << 5)
#define ISR_TX_EMPTY (1u << 7)
#define ICR_OVERRUN (1u << 3)
#define CR1_ENABLE 1u
#define CR1_RX_ENABLE (1u << 2)
#define CR1_TX_ENABLE (1u << 3)

void td_uart_init(void)
{
    CR1 = 0; /* the divisor can be written only while disabled */
    BRR = (TD_UART_CLOCK_HZ + TD_UART_BAUD / 2u) / TD_UART_BAUD; /* 16 samples a bit */
    CR1 = CR1_ENABLE | CR1_TX_ENABLE | CR1_RX_ENABLE;
}

int td_uart_ready(void)
{
    return (ISR & ISR_RX_NOT_EMPTY) != 0;
}

uint8_t td_uart_get(void)
{
    while (!td_uart_ready()) {
    }
    ICR = ICR_OVERRUN;
    return (uint8_t)RDR;
}

void td_uart_put(uint8_t byte)
{
    while ((ISR & ISR_TX_EMPTY) == 0) {
    }
    TDR = byte;
}
