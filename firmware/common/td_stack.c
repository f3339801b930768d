/* Paint the stack at start and look for the deepest byte that has changed since. */
#include "td_stack.h"

#include "td_platform.h"

#define TD_STACK_PATTERN 0xC5u
#define TD_STACK_MARGIN 128u /* keep off the frame of the function that paints */

void td_stack_paint(void)
{
    volatile uint8_t *bottom = td_stack_bottom();
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    for (uintptr_t i = (uintptr_t)bottom; i + TD_STACK_MARGIN < here; i++) {
        *bottom++ = TD_STACK_PATTERN;
    }
}

uint32_t td_stack_used(void)
{
    const volatile uint8_t *byte = td_stack_bottom();
    const volatile uint8_t *top = td_stack_top();
    while (byte < top && *byte == TD_STACK_PATTERN) {
        byte++;
    }
    return (uint32_t)(top - byte);
}

uint32_t td_stack_reserved(void)
{
    return (uint32_t)(td_stack_top() - td_stack_bottom());
}
