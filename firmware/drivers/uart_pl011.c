/* Arm PrimeCell PL011 and its kin in Stellaris chips: FIFOs of 16 bytes.
 *
 * Registers: "PrimeCell UART (PL011) Technical Reference Manual" (DDI 0183), section 3.3. */
#include "td_platform.h"

#define DR TD_REGISTER(TD_UART_BASE + 0x00u)
#define FR TD_REGISTER(TD_UART_BASE + 0x18u)
#define IBRD TD_REGISTER(TD_UART_BASE + 0x24u)
#define FBRD TD_REGISTER(TD_UART_BASE + 0x28u)
#define LCRH TD_REGISTER(TD_UART_BASE + 0x2Cu)
#define CR TD_REGISTER(TD_UART_BASE + 0x30u)

#define FR_RX_EMPTY (1u << 4)
#define FR_TX_FULL (1u << 5)
#define LCRH_FIFO_8N1 0x70u
#define CR_ENABLE_TX_RX 0x301u

void td_uart_init(void)
{
    uint32_t divisor = (TD_UART_CLOCK_HZ * 4u + TD_UART_BAUD / 2u) / TD_UART_BAUD; /* in 1/64 */
    CR = 0;
    IBRD = divisor >> 6;
    FBRD = divisor & 63u;
    LCRH = LCRH_FIFO_8N1; /* after the divisor: this write makes it take effect */
    CR = CR_ENABLE_TX_RX;
    (void)DR; /* what came before; QEMU then asks its line for more */
}

int td_uart_ready(void)
{
    return (FR & FR_RX_EMPTY) == 0;
}

uint8_t td_uart_get(void)
{
    while (!td_uart_ready()) {
    }
    return (uint8_t)DR;
}

void td_uart_put(uint8_t byte)
{
    while ((FR & FR_TX_FULL) != 0) {
    }
    DR = byte;
}
