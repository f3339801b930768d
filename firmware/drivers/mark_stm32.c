/* Raise a pin of an STM32 while an inference runs: GPIO with BSRR at offset 0x18, so all families
 * but F1 (ST RM0390 section 7.4.7; the same in RM0385, RM0433 and RM0456). The board's set-up makes
 * the pin an output. */
#include "td_platform.h"

#define BSRR TD_REGISTER(TD_MARK_BASE + 0x18u)

void td_mark(bool running)
{
    BSRR = 1u << (running ? TD_MARK_PIN : TD_MARK_PIN + 16u);
}
