/* Row pointers: how a kernel that computes bands of rows sees a tensor. */
#ifndef TD_ROWS_H
#define TD_ROWS_H

#include <stddef.h>
#include <stdint.h>

/* Point rows[k] at row first + k * step of a tensor of `count` rows, `pitch` bytes apart.
 * A row outside the tensor is padding: NULL. */
static inline void td_rows(const int8_t **rows, int32_t taps, const int8_t *base, int32_t pitch,
                           int32_t count, int32_t first, int32_t step)
{
    for (int32_t k = 0; k < taps; k++) {
        int32_t y = first + k * step;
        rows[k] = y >= 0 && y < count ? base + y * pitch : NULL;
    }
}

#endif
