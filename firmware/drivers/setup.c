/* Clocks, power and pins: the accesses to registers that the board file lists. */
#include "td_platform.h"

#define WAIT_LIMIT 100000u /* turns: milliseconds, far beyond what an oscillator or PLL takes */

typedef struct {
    uint32_t address;
    uint32_t mask;
    uint32_t value;
    uint32_t wait;
} td_step;

#define STEP(address, mask, value, wait) {address, mask, value, wait},
static const td_step steps[] = {TD_SETUP(STEP) {0, 0, 0, 0}};

/* An emulator without these registers reads zeros: every wait ends. */
void td_setup_init(void)
{
    for (const td_step *step = steps; step->address != 0; step++) {
        if (step->wait != 0) {
            for (uint32_t i = 0; i < WAIT_LIMIT; i++) {
                if ((TD_REGISTER(step->address) & step->mask) == step->value) {
                    break;
                }
            }
        } else if (step->mask == UINT32_MAX) {
            TD_REGISTER(step->address) = step->value;
        } else {
            TD_REGISTER(step->address) = (TD_REGISTER(step->address) & ~step->mask) | step->value;
        }
    }
}
