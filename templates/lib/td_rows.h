/* Row pointers: how a kernel that computes bands of rows sees a tensor. */
#ifndef TD_ROWS_H
#define TD_ROWS_H

#include <stddef.h>
#include <stdint.h>

/* Point rows[k] at row first + k * step of a tensor of `count` rows, `pitch` bytes apart.
 * A row outside the tensor is padding: `outside`, a row of zero points or NULL. */
static inline void td_rows(const int8_t **rows, int32_t taps, const int8_t *base, int32_t pitch,
                           int32_t count, int32_t first, int32_t step, const int8_t *outside)
{
    for (int32_t k = 0; k < taps; k++) {
        int32_t y = first + k * step;
        rows[k] = y >= 0 && y < count ? base + y * pitch : outside;
    }
}

/* The same for a tensor of which only `ring` rows are held: row y lies at place y modulo ring. */
static inline void td_ring_rows(const int8_t **rows, int32_t taps, const int8_t *base,
                                int32_t pitch, int32_t ring, int32_t count, int32_t first,
                                int32_t step, const int8_t *outside)
{
    for (int32_t k = 0; k < taps; k++) {
        int32_t y = first + k * step;
        rows[k] = y >= 0 && y < count ? base + y % ring * pitch : outside;
    }
}

/* The same for a tensor whose rows lie anywhere: row y at table[y modulo period] units. */
static inline void td_table_rows(const int8_t **rows, int32_t taps, const int8_t *base,
                                 const uint16_t *table, int32_t unit, int32_t period,
                                 int32_t count, int32_t first, int32_t step,
                                 const int8_t *outside)
{
    for (int32_t k = 0; k < taps; k++) {
        int32_t y = first + k * step;
        rows[k] = y >= 0 && y < count ? base + table[y % period] * unit : outside;
    }
}

/* The same where the units do not fit 16 bits. */
static inline void td_far_rows(const int8_t **rows, int32_t taps, const int8_t *base,
                               const uint32_t *table, int32_t unit, int32_t period, int32_t count,
                               int32_t first, int32_t step, const int8_t *outside)
{
    for (int32_t k = 0; k < taps; k++) {
        int32_t y = first + k * step;
        rows[k] = y >= 0 && y < count ? base + (int32_t)table[y % period] * unit : outside;
    }
}

/* Set `bytes` bytes, a multiple of 4 at an aligned address, to one value. */
static inline void td_fill(int8_t *to, int32_t bytes, int32_t value)
{
    for (int32_t i = 0; i < bytes; i += 4) {
        to[i] = (int8_t)value;
        to[i + 1] = (int8_t)value;
        to[i + 2] = (int8_t)value;
        to[i + 3] = (int8_t)value;
    }
}

/* Fill the padding columns on both sides of the planes of each row, and `tail` bytes after the
 * last one; out[k] is the first element of a row that is not padding, NULL for a row that does not
 * exist. */
static inline void td_border(int8_t *const *out, int32_t rows, int32_t planes, int32_t pitch,
                             int32_t left, int32_t right, int32_t tail, int32_t value)
{
    for (int32_t k = 0; k < rows && out[k] != NULL; k++) {
        for (int32_t i = -left; i < right; i++) {
            /* Left of a plane is right of the one before. */
            int8_t *at = out[k] + (i < 0 ? i : i + pitch - left - right);
            for (int32_t p = 0; p < planes; p++, at += pitch) {
                *at = (int8_t)value;
            }
        }
        int8_t *end = out[k] + planes * pitch - left;
        for (int32_t i = 0; i < tail; i++) {
            end[i] = (int8_t)value;
        }
    }
}

#endif
