/* Fixed-point arithmetic of the tinydeploy kernels.
 *
 * The definitions are gemmlowp's and TensorFlow Lite's (fixedpoint.h, common.h), so that results
 * agree bit for bit. No floating point, no global state. */
#ifndef TD_FIXEDPOINT_H
#define TD_FIXEDPOINT_H

#include <stddef.h>
#include <stdint.h>

#if (-1 >> 1) != -1
#error "the compiler must shift negative numbers arithmetically"
#endif

/* High 32 bits of 2ab, rounded to nearest; the one overflow saturates. */
static inline int32_t td_high_mul(int32_t a, int32_t b)
{
    int64_t product = (int64_t)a * b;
    int32_t nudge = product >= 0 ? (int32_t)1 << 30 : 1 - ((int32_t)1 << 30);
    if (a == INT32_MIN && b == INT32_MIN) {
        return INT32_MAX;
    }
    return (int32_t)((product + nudge) / ((int64_t)1 << 31));
}

/* x / 2^exponent, rounded to nearest, halves away from zero; 0 <= exponent <= 31. */
static inline int32_t td_divide_by_pot(int32_t x, int32_t exponent)
{
    int32_t mask = (int32_t)(((uint32_t)1 << exponent) - 1u);
    int32_t remainder = x & mask;
    int32_t threshold = (mask >> 1) + (x < 0 ? 1 : 0);
    return (x >> exponent) + (remainder > threshold ? 1 : 0);
}

/* x * 2^amount modulo 2^32. */
static inline int32_t td_shift_left(int32_t x, int32_t amount)
{
    return (int32_t)((uint32_t)x << amount);
}

/* x * multiplier * 2^(shift - 31), rounded twice: by the multiplication and by the shift. */
static inline int32_t td_requantize(int32_t x, int32_t multiplier, int32_t shift)
{
    int32_t left = shift > 0 ? shift : 0;
    int32_t right = shift > 0 ? 0 : -shift;
    return td_divide_by_pot(td_high_mul(td_shift_left(x, left), multiplier), right);
}

/* x * multiplier * 2^(shift - 31), rounded once and saturated. */
static inline int32_t td_requantize_once(int32_t x, int32_t multiplier, int32_t shift)
{
    int32_t total = 31 - shift;
    int64_t rounded = ((int64_t)x * multiplier + ((int64_t)1 << (total - 1))) >> total;
    if (rounded > INT32_MAX) {
        return INT32_MAX;
    }
    return rounded < INT32_MIN ? INT32_MIN : (int32_t)rounded;
}

/* x * multiplier * 2^(shift - 15), rounded once; x of 48 bits, a multiplier of 15, shift <= 7. */
static inline int32_t td_requantize_wide(int64_t x, int32_t multiplier, int32_t shift)
{
    int32_t total = 15 - shift;
    return (int32_t)((x * multiplier + ((int64_t)1 << (total - 1))) >> total);
}

/* The same for x of 32 bits and shift <= -2: the lower 16 bits of the product never decide. */
static inline int32_t td_requantize_narrow(int32_t x, int32_t multiplier, int32_t shift)
{
    int32_t rest = -1 - shift;
    int32_t upper = (int32_t)(((int64_t)x * multiplier) >> 16);
    return (upper + ((int32_t)1 << (rest - 1))) >> rest;
}

/* x * multiplier * 2^(shift - 31), halves away from 0, saturated; x of 48 bits, shift <= 7. */
static inline int32_t td_requantize_wide_once(int64_t x, int32_t multiplier, int32_t shift)
{
    int32_t rest = 15 - shift; /* the lower 16 bits never decide */
    int64_t size = x < 0 ? -x : x;
    int64_t upper = (size >> 16) * multiplier + (((size & 0xffff) * multiplier) >> 16);
    int64_t rounded = (upper + ((int64_t)1 << (rest - 1))) >> rest;
    if (rounded > INT32_MAX) {
        return x < 0 ? INT32_MIN : INT32_MAX;
    }
    return (int32_t)(x < 0 ? -rounded : rounded);
}

static inline int32_t td_clamp_wide(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : x > high ? high : x;
}

static inline int8_t td_clamp(int32_t x, int32_t low, int32_t high)
{
    return (int8_t)td_clamp_wide(x, low, high);
}

/* x + offset, clamped; no x overflows. */
static inline int8_t td_offset_clamp(int32_t x, int32_t offset, int32_t low, int32_t high)
{
    return (int8_t)(td_clamp_wide(x, low - offset, high - offset) + offset);
}

#endif
