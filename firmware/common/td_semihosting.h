/* The emulator's own channel: semihosting calls, for firmware that runs in QEMU. */
#ifndef TD_SEMIHOSTING_H
#define TD_SEMIHOSTING_H

#include <stdint.h>

/* arch: make one call; halts or faults where nobody answers. */
uint32_t td_semihosting_call(uint32_t operation, const void *arguments);

#endif
