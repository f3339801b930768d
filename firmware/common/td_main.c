/* Bring the board up and serve the host for ever. */
#include <string.h>

#include "td_commands.h"
#include "td_firmware.h"
#include "td_platform.h"
#include "td_run.h"
#include "td_stack.h"

#define TD_ARENA_FILL 0xA5 /* a model must not count on zeros that it did not write */

uint8_t td_arena[TD_ARENA_BYTES] __attribute__((aligned(16), section(TD_ARENA_SECTION)));

void td_main(void)
{
    td_stack_paint();
    td_setup_init();
    td_link_init();
    td_counter_init();
    memset(td_arena, TD_ARENA_FILL, sizeof(td_arena));
    for (uint32_t i = 0; i < td_model.region_count; i++) {
        memset(td_model.regions[i].memory, TD_ARENA_FILL, td_model.regions[i].bytes);
    }
    td_run_init();
    for (;;) {
        td_commands_accept(td_link_get());
    }
}
