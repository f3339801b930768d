/* LM3S6965: 50 MHz from the 8 MHz crystal and the PLL, UART0 on PA0 (RX) and PA1 (TX).
 *
 * "Stellaris LM3S6965 Microcontroller" data sheet, sections 5.3 (clock, initialisation and
 * configuration), 8 (GPIO) and 12 (UART). */
#include "td_platform.h"

#define RIS TD_REGISTER(0x400FE050u)
#define RCC TD_REGISTER(0x400FE060u)
#define RCGC1 TD_REGISTER(0x400FE104u)
#define RCGC2 TD_REGISTER(0x400FE108u)
#define GPIOA_AFSEL TD_REGISTER(0x40004420u)
#define GPIOA_DEN TD_REGISTER(0x4000451Cu)

#define BYPASS (1u << 11)
#define POWER_DOWN (1u << 13)
#define USE_DIVIDER (1u << 22)
#define DIVIDER_MASK (15u << 23)
#define DIVIDE_BY_4 (3u << 23)
#define CRYSTAL_MASK (15u << 6)
#define CRYSTAL_8_MHZ (14u << 6)
#define OSCILLATOR_MASK (3u << 4)
#define MAIN_OSCILLATOR_OFF 1u
#define PLL_LOCKED (1u << 6)
#define WAIT_LIMIT 100000u

void td_setup_init(void)
{
    uint32_t rcc = (RCC | BYPASS) & ~(USE_DIVIDER | MAIN_OSCILLATOR_OFF);
    RCC = rcc; /* off the PLL before it changes */
    rcc &= ~(CRYSTAL_MASK | OSCILLATOR_MASK | POWER_DOWN | DIVIDER_MASK);
    rcc |= CRYSTAL_8_MHZ | USE_DIVIDER | DIVIDE_BY_4; /* 200 MHz / 4 */
    RCC = rcc;
    for (uint32_t i = 0; i < WAIT_LIMIT && (RIS & PLL_LOCKED) == 0; i++) {
    }
    RCC = rcc & ~BYPASS;

    RCGC1 |= 1u; /* UART0 */
    RCGC2 |= 1u; /* GPIO port A */
    (void)RCGC2; /* three cycles before the first access */
    GPIOA_AFSEL |= 3u;
    GPIOA_DEN |= 3u;
}
