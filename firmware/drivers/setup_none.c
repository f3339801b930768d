/* A board that needs no clock, power or pin set-up. */
#include "td_platform.h"

void td_setup_init(void)
{
}
