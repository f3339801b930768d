/* STM32F405: 168 MHz from the internal oscillator, USART1 on PB6 (TX) and PB7 (RX).
 *
 * ST RM0090, sections 3.5 (flash wait states), 7.3 (RCC) and 8.4 (GPIO); pins: the data sheet's
 * table of alternate functions. An emulator without these registers reads zeros: every wait ends. */
#include "td_platform.h"

#define RCC 0x40023800u
#define RCC_CR TD_REGISTER(RCC + 0x00u)
#define RCC_PLLCFGR TD_REGISTER(RCC + 0x04u)
#define RCC_CFGR TD_REGISTER(RCC + 0x08u)
#define RCC_AHB1ENR TD_REGISTER(RCC + 0x30u)
#define RCC_APB2ENR TD_REGISTER(RCC + 0x44u)
#define FLASH_ACR TD_REGISTER(0x40023C00u)
#define GPIOB 0x40020400u
#define GPIOB_MODER TD_REGISTER(GPIOB + 0x00u)
#define GPIOB_PUPDR TD_REGISTER(GPIOB + 0x0Cu)
#define GPIOB_AFRL TD_REGISTER(GPIOB + 0x20u)

#define WAIT_LIMIT 100000u /* far beyond the PLL's 200 us */

static void wait_for(uint32_t address, uint32_t mask, uint32_t value)
{
    for (uint32_t i = 0; i < WAIT_LIMIT && (TD_REGISTER(address) & mask) != value; i++) {
    }
}

void td_setup_init(void)
{
    FLASH_ACR = 0x705u; /* 5 wait states, prefetch, instruction and data cache */
    /* HSI 16 MHz / 16 * 336 / 2 = 168 MHz; 336 / 7 = 48 MHz for USB. */
    RCC_PLLCFGR = 16u | (336u << 6) | (0u << 16) | (7u << 24);
    RCC_CR |= 1u << 24;
    wait_for(RCC, 1u << 25, 1u << 25);
    RCC_CFGR = (5u << 10) | (4u << 13) | 2u; /* APB1 / 4, APB2 / 2 = 84 MHz, run from the PLL */
    wait_for(RCC + 0x08u, 3u << 2, 2u << 2);

    RCC_AHB1ENR |= 1u << 1;  /* GPIOB */
    RCC_APB2ENR |= 1u << 4;  /* USART1 */
    (void)RCC_APB2ENR;       /* the clock needs two cycles before the first access */
    GPIOB_AFRL = (GPIOB_AFRL & ~0xFF000000u) | 0x77000000u; /* AF7 */
    GPIOB_PUPDR = (GPIOB_PUPDR & ~0xF000u) | 0x4000u;       /* RX pulled up */
    GPIOB_MODER = (GPIOB_MODER & ~0xF000u) | 0xA000u;
}
