/* UART of an nRF51 or nRF52: six bytes of receive buffer. The pins are set by the board's set-up.
 *
 * Registers: "nRF51 Series Reference Manual" v3.0, section 29. */
#include "td_platform.h"

#define START_RX TD_REGISTER(TD_UART_BASE + 0x000u)
#define START_TX TD_REGISTER(TD_UART_BASE + 0x008u)
#define RX_READY TD_REGISTER(TD_UART_BASE + 0x108u)
#define TX_READY TD_REGISTER(TD_UART_BASE + 0x11Cu)
#define ENABLE TD_REGISTER(TD_UART_BASE + 0x500u)
#define RXD TD_REGISTER(TD_UART_BASE + 0x518u)
#define TXD TD_REGISTER(TD_UART_BASE + 0x51Cu)
#define BAUD_RATE TD_REGISTER(TD_UART_BASE + 0x524u)

#define ENABLE_UART 4u

static uint8_t sending;

void td_uart_init(void)
{
    /* The generator adds BAUD_RATE to 32 bits at 16 MHz; only the upper 20 bits count. */
    BAUD_RATE = (uint32_t)((((uint64_t)TD_UART_BAUD << 32) / 16000000u + 0x800u) & 0xFFFFF000u);
    ENABLE = ENABLE_UART;
    RX_READY = 0;
    TX_READY = 0;
    START_RX = 1;
    START_TX = 1;
}

int td_uart_ready(void)
{
    return RX_READY != 0;
}

uint8_t td_uart_get(void)
{
    while (!td_uart_ready()) {
    }
    RX_READY = 0; /* before the read, which raises it again when more bytes wait */
    return (uint8_t)RXD;
}

void td_uart_put(uint8_t byte)
{
    if (sending) {
        while (TX_READY == 0) {
        }
    }
    TX_READY = 0;
    TXD = byte;
    sending = 1;
}
