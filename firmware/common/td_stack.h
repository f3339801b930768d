/* How much of the stack has ever been used. */
#ifndef TD_STACK_H
#define TD_STACK_H

#include <stdint.h>

void td_stack_paint(void);        /* fill the unused part with a pattern */
uint32_t td_stack_used(void);     /* bytes from the top to the deepest overwritten byte */
uint32_t td_stack_reserved(void); /* bytes from top to bottom */

#endif
