/* The contract between generated model code and the firmware that runs it. */
#ifndef TD_FIRMWARE_H
#define TD_FIRMWARE_H

#include <stdint.h>

/* The offset of an input that is not in the arena: td_feed delivers it while the model runs. */
#define TD_STREAMED 0xFFFFFFFFu

/* A tensor's place within the arena. */
typedef struct {
    uint32_t offset;
    uint32_t bytes;
} td_span;

/* A memory of the model's besides the arena; its bytes go on at `offset`. */
typedef struct {
    uint32_t offset;
    uint32_t bytes;
    int8_t *memory;
} td_region;

typedef struct {
    uint8_t digest[16]; /* first 16 bytes of the SHA-256 of the model sources */
    uint32_t arena_bytes;
    uint32_t step_count;
    uint32_t input_count;
    uint32_t output_count;
    const td_span *inputs;
    const td_span *outputs;
    void (*step)(void *arena, uint32_t index); /* execute step `index` (a node) of the network */
    const td_region *regions;
    uint32_t region_count;
} td_firmware_model;

/* Defined by the generated file firmware_model.c. */
extern const td_firmware_model td_model;

/* td_run.c: get bytes of a streamed input from the host, for steps to call. The time it takes is
 * not the step's. When the host does not deliver, `to` is left as it is, and so are all later
 * calls' until the run ends, in an error. */
void td_feed(void *unused, uint32_t input, uint32_t at, uint32_t bytes, int8_t *to);

#endif
