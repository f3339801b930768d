/* BBC micro:bit v1: the crystal oscillator, and the UART pins of the interface chip.
 *
 * "nRF51 Series Reference Manual" v3.0, sections 13 (clock) and 29 (UART); micro:bit v1.5
 * schematic: TGT_TX is P0.24, TGT_RX is P0.25. */
#include "td_platform.h"

#define HFCLK_START TD_REGISTER(0x40000000u)
#define HFCLK_STARTED TD_REGISTER(0x40000100u)
#define GPIO_DIRSET TD_REGISTER(0x50000518u)
#define GPIO_OUTSET TD_REGISTER(0x50000508u)
#define UART_PSEL_TXD TD_REGISTER(0x4000250Cu)
#define UART_PSEL_RXD TD_REGISTER(0x40002514u)

#define PIN_TX 24u
#define PIN_RX 25u
#define WAIT_LIMIT 100000u /* the crystal takes under 1 ms; an emulator has none */

void td_setup_init(void)
{
    HFCLK_STARTED = 0;
    HFCLK_START = 1;
    for (uint32_t i = 0; i < WAIT_LIMIT && HFCLK_STARTED == 0; i++) {
    }
    GPIO_OUTSET = 1u << PIN_TX;
    GPIO_DIRSET = 1u << PIN_TX;
    UART_PSEL_TXD = PIN_TX;
    UART_PSEL_RXD = PIN_RX;
}
