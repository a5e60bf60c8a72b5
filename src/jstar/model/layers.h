/* What a network does besides matrix products, row by row; and products with a bias. A part of
 * network.c. All widths are multiples of STEP.
 */
#include <stdlib.h>

#include "exp2.h"
#include "panels.h"

#define EPS 1e-6f      /* NORM_EPS of block.py */
#define MAX_TOKENS 64 /* of an image; fast_network.py says the same */

#define AT(pointer, j) (*(vec *)((pointer) + (j)))
#define CONST_AT(pointer, j) (*(const vec *)((pointer) + (j)))
#define EACH(j, n) for (int64_t j = 0; j < (n); j += STEP)

static inline float total(vec v) {
#if STEP == 4
    return (v[0] + v[2]) + (v[1] + v[3]);
#else
    return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
#endif
}

static inline float dot(const float *a, const float *b, int64_t n) {
    vec sum = {0};
    EACH(j, n) sum += CONST_AT(a, j) * CONST_AT(b, j);
    return total(sum);
}

static inline float inverse_rms(const float *x, int64_t n) {
    return 1.0f / sqrtf(dot(x, x, n) / (float)n + EPS);
}

/* Gradient of x / rms(x), from that of its result times `gain`: d_x = (d - unit mean(d unit)). */
static inline void norm_backward(const float *d_y, const float *unit, const float *gain,
                                 float inverse, int64_t n, float *d_x) {
    vec sum = {0};
    EACH(j, n) sum += CONST_AT(d_y, j) * CONST_AT(gain, j) * CONST_AT(unit, j);
    float mean = total(sum) / (float)n;
    EACH(j, n)
        AT(d_x, j) = (CONST_AT(d_y, j) * CONST_AT(gain, j) - CONST_AT(unit, j) * mean) * inverse;
}

/* ---- the tokens of one image (T of them) ---- */

/* h = x / rms(x) (1 + scale) + shift. */
static void modulated_norm(int64_t T, int64_t E, const float *x, const float *shift,
                           const float *scale, float *h) {
    for (int64_t t = 0; t < T; t++, x += E, h += E) {
        float inverse = inverse_rms(x, E);
        EACH(j, E) AT(h, j) = CONST_AT(x, j) * inverse * (1.0f + CONST_AT(scale, j)) +
                              CONST_AT(shift, j);
    }
}

/* Adds to d_x; sets d_shift and d_scale, which follow each other. `row` is room for 3E. */
static void modulated_norm_backward(int64_t T, int64_t E, const float *d_h, const float *x,
                                    const float *scale, float *d_x, float *d_shift, float *row) {
    float *d_scale = d_shift + E, *gain = row, *unit = row + E, *d_row = row + 2 * E;
    EACH(j, E) {
        AT(gain, j) = 1.0f + CONST_AT(scale, j);
        AT(d_shift, j) = AT(d_scale, j) = (vec){0};
    }
    for (int64_t t = 0; t < T; t++, x += E, d_h += E, d_x += E) {
        float inverse = inverse_rms(x, E);
        EACH(j, E) {
            AT(unit, j) = CONST_AT(x, j) * inverse;
            AT(d_shift, j) += CONST_AT(d_h, j);
            AT(d_scale, j) += CONST_AT(d_h, j) * AT(unit, j);
        }
        norm_backward(d_h, unit, gain, inverse, E, d_row);
        EACH(j, E) AT(d_x, j) += AT(d_row, j);
    }
}

/* y = x + gate branch. */
static void gated(int64_t T, int64_t E, const float *x, const float *gate, const float *branch,
                  float *y) {
    for (int64_t i = 0; i < T * E; i += E)
        EACH(j, E)
            AT(y, i + j) = CONST_AT(x, i + j) + CONST_AT(gate, j) * CONST_AT(branch, i + j);
}

static void gated_backward(int64_t T, int64_t E, const float *d_y, const float *gate,
                           const float *branch, float *d_branch, float *d_gate) {
    EACH(j, E) AT(d_gate, j) = (vec){0};
    for (int64_t i = 0; i < T * E; i += E)
        EACH(j, E) {
            AT(d_gate, j) += CONST_AT(d_y, i + j) * CONST_AT(branch, i + j);
            AT(d_branch, i + j) = CONST_AT(d_y, i + j) * CONST_AT(gate, j);
        }
}

/* u Phi(u) and its derivative; the normal distribution by Abramowitz and Stegun, 7.1.26. */
static inline float gelu(float u, float *slope) {
    float density = exp2_fast(-0.5f * LOG2E * u * u);
    float t = 1.0f / (1.0f + 0.23164190f * fabsf(u));
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    float tail = 0.5f * p * t * density, below = u > 0.0f ? 1.0f - tail : tail;
    *slope = below + 0.398942280f * u * density;
    return u * below;
}

/* ---- many rows ---- */

static inline float sigmoid(float x) {
    float small = exp2_fast(-fabsf(x) * LOG2E);
    return (x < 0.0f ? small : 1.0f) / (1.0f + small);
}

static void silu(int64_t count, const float *x, float *y) {
    for (int64_t j = 0; j < count; j++) y[j] = x[j] * sigmoid(x[j]);
}

static void silu_backward(int64_t count, const float *x, float *d) {
    for (int64_t j = 0; j < count; j++) {
        float s = sigmoid(x[j]);
        d[j] *= s * (1.0f + x[j] * (1.0f - s));
    }
}

/* The rows of w [out, in] as the columns of a product x w^T, or its columns as those of d_y w, in
 * panels; `out` is rounded up to 4 with zeros. Returns the end. */
static float *panels_of(const float *w, int64_t out, int64_t in, int backward, float *to) {
    int64_t columns = backward ? in : (out + 3) & ~3;
    for (int64_t j = 0, width; j < columns; j += width) {
        width = panel_width(columns - j);
        if (backward)
            copy_panel(out, width, w + j, in, to);
        else if (j + width <= out)
            turn_panel(in, width, w + j * in, in, to);
        else
            for (int64_t k = 0; k < in; k++)
                for (int64_t i = 0; i < width; i++)
                    to[k * width + i] = j + i < out ? w[(j + i) * in + k] : 0.0f;
        to += (backward ? out : in) * width;
    }
    return to;
}

/* y = x w^T + bias, w in panels, rows of x `stride` apart; `out` is rounded up to 4. */
static void affine(int64_t rows, int64_t in, int64_t out, const float *x, int64_t stride,
                   const float *w, const float *bias, float *y) {
    int64_t columns = (out + 3) & ~3;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) y[i * columns + j] = j < out ? bias[j] : 0.0f;
    product_packed(rows, columns, in, x, stride, 1, w, y, columns, 1);
}

/* d_w = d_y^T x and d_bias = the sum of d_y over its rows, which are `stride` apart; `copies` as
 * product_copied wants it. */
static void affine_backward(int64_t rows, int64_t in, int64_t out, const float *d_y, int64_t stride,
                            const float *x, float *d_w, float *d_bias, int add, float *copies) {
    product_wide(out, in, rows, d_y, 1, stride, x, in, d_w, in, add, copies);
    for (int64_t j = 0; j < out; j++) d_bias[j] = add ? d_bias[j] : 0.0f;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < out; j++) d_bias[j] += d_y[i * stride + j];
}
