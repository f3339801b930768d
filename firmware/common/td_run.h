/* Run the model's steps and count each one. */
#ifndef TD_RUN_H
#define TD_RUN_H

#include <stdint.h>

void td_run_init(void);                  /* measure what reading the counter itself costs */
uint64_t td_run_invoke(void);            /* all steps in order; total ticks */
uint64_t td_run_step(uint32_t index);    /* one step; ticks */
int td_run_starved(void);                /* did the last of these miss input? */
int td_run_finished(void);               /* has an invoke been run? */
uint32_t td_run_ticks(uint32_t index);   /* of the last invoke; UINT32_MAX: that much or more */

/* td_commands.c: called between steps when the host has not heard from us for a while. */
void td_run_busy(uint32_t step);

/* td_commands.c: ask the host for bytes of an input; 0 when they do not come in time. */
int td_run_fetch(uint32_t input, uint32_t at, uint32_t bytes, int8_t *to);

#endif
