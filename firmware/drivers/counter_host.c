/* Nanoseconds of the host's monotonic clock. */
#define _XOPEN_SOURCE 700
#include <time.h>

#include "td_platform.h"

const uint8_t td_counter_kind = TD_COUNTER_NANOSECONDS;

void td_counter_init(void)
{
}

void td_counter_resume(void)
{
}

void td_counter_pause(void)
{
}

uint64_t td_counter_read(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
