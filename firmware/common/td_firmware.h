/* The contract between generated model code and the firmware that runs it. */
#ifndef TD_FIRMWARE_H
#define TD_FIRMWARE_H

#include <stdint.h>

/* A tensor's place within the arena. */
typedef struct {
    uint32_t offset;
    uint32_t bytes;
} td_span;

typedef struct {
    uint8_t digest[16]; /* first 16 bytes of the SHA-256 of the model sources */
    uint32_t arena_bytes;
    uint32_t step_count;
    uint32_t input_count;
    uint32_t output_count;
    const td_span *inputs;
    const td_span *outputs;
    void (*step)(void *arena, uint32_t index); /* execute step `index` (a node) of the network */
} td_firmware_model;

/* Defined by the generated file firmware_model.c. */
extern const td_firmware_model td_model;

#endif
