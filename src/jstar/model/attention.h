/* Attention of one image, forward and backward: a part of block.h. */
#include "layers.h"

struct attention {
    int64_t tokens, width, heads;
    const float *qk_scale; /* [2, E / heads] */
    float *d_qk_scale;     /* backward only */
};

/* One head's columns of `unit`, or another tensor with rows `stride` apart, as [h, padded]: tokens that
 * pad are zero. Number j is multiplied by gain[j] factor. */
static void turned(int64_t T, int64_t padded, int64_t h, const float *x, int64_t stride,
                   const float *gain, float factor, float *y) {
    for (int64_t j = 0; j < h; j++, y += padded) {
        float by = gain ? gain[j] * factor : factor;
        for (int64_t t = 0; t < T; t++) y[t] = x[t * stride + j] * by;
        for (int64_t t = T; t < padded; t++) y[t] = 0.0f;
    }
}

/* One head's queries or keys, times gain factor: [T, h]. */
static void scaled(int64_t T, int64_t h, const float *unit, int64_t stride, const float *gain,
                   float factor, float *y) {
    for (int64_t t = 0; t < T; t++, unit += stride, y += h)
        EACH(j, h) AT(y, j) = CONST_AT(unit, j) * CONST_AT(gain, j) * factor;
}

/* [h, padded] -> rows `stride` apart. */
static void turned_back(int64_t T, int64_t padded, int64_t h, const float *y, float *x,
                        int64_t stride) {
    for (int64_t t = 0; t < T; t++, x += stride)
        for (int64_t j = 0; j < h; j++) x[j] = y[j * padded + t];
}

/* Over the rows (keys) of s [T, padded], W columns (queries) at a time. */
#define COLUMNS(W)                                                                               \
    static inline __attribute__((always_inline)) void softmax_##W(int64_t T, int64_t padded,     \
                                                                  float *s) {                    \
        float top[W], sum[W];                                                                    \
        for (int i = 0; i < W; i++) top[i] = s[i], sum[i] = 0.0f;                                \
        for (int64_t t = 1; t < T; t++)                                                          \
            for (int i = 0; i < W; i++) {                                                        \
                float x = s[t * padded + i];                                                     \
                top[i] = x > top[i] ? x : top[i];                                                \
            }                                                                                    \
        for (int64_t t = 0; t < T; t++)                                                          \
            for (int i = 0; i < W; i++) {                                                        \
                float x = exp2_fast((s[t * padded + i] - top[i]) * LOG2E);                       \
                s[t * padded + i] = x;                                                           \
                sum[i] += x;                                                                     \
            }                                                                                    \
        for (int i = 0; i < W; i++) sum[i] = 1.0f / sum[i];                                      \
        for (int64_t t = 0; t < T; t++)                                                          \
            for (int i = 0; i < W; i++) s[t * padded + i] *= sum[i];                             \
    }                                                                                            \
    /* d_s = p (d_s - the mean of d_s under p). */                                               \
    static inline __attribute__((always_inline)) void softmax_backward_##W(                      \
        int64_t T, int64_t padded, const float *p, float *d_s) {                                 \
        float mean[W];                                                                           \
        for (int i = 0; i < W; i++) mean[i] = 0.0f;                                              \
        for (int64_t t = 0; t < T; t++)                                                          \
            for (int i = 0; i < W; i++) mean[i] += p[t * padded + i] * d_s[t * padded + i];      \
        for (int64_t t = 0; t < T; t++)                                                          \
            for (int i = 0; i < W; i++)                                                          \
                d_s[t * padded + i] = p[t * padded + i] * (d_s[t * padded + i] - mean[i]);       \
    }

COLUMNS(8)
#if LANES == 16
COLUMNS(16)
#endif

static void softmax(int64_t T, int64_t padded, float *s) {
    int64_t j = 0;
#if LANES == 16
    for (; j + 16 <= padded; j += 16) softmax_16(T, padded, s + j);
#endif
    for (; j < padded; j += 8) softmax_8(T, padded, s + j);
}

static void softmax_backward(int64_t T, int64_t padded, const float *p, float *d_s) {
    int64_t j = 0;
#if LANES == 16
    for (; j + 16 <= padded; j += 16) softmax_backward_16(T, padded, p + j, d_s + j);
#endif
    for (; j < padded; j += 8) softmax_backward_8(T, padded, p + j, d_s + j);
}

/* Norms the raw queries and keys in `unit` [T, 3, E], head by head. */
static void norm_heads(const struct attention *b, float *unit, float *inverse) {
    int64_t T = b->tokens, E = b->width, n = 2 * b->heads, h = E / b->heads;
    for (int64_t t = 0; t < T; t++)
        for (int64_t k = 0; k < n; k++) {
            const float *row = unit + t * 3 * E + k * h;
            inverse[t * n + k] = dot(row, row, h);
        }
    for (int64_t i = 0; i < T * n; i++) inverse[i] = 1.0f / sqrtf(inverse[i] / (float)h + EPS);
    for (int64_t t = 0; t < T; t++)
        for (int64_t k = 0; k < n; k++)
            EACH(j, h) AT(unit + t * 3 * E + k * h, j) *= inverse[t * n + k];
}

/* Attention of one image, from raw queries, keys and values in `unit`, which it norms in place.
 * A head's weights are [keys, queries], so that a softmax runs over many queries at once.
 * `room`: 3 MAX_TOKENS h. */
static void attention(const struct attention *b, float *unit, float *inverse, float *weights,
                      float *mixed, float *room) {
    int64_t T = b->tokens, E = b->width, heads = b->heads, h = E / heads, padded = (T + 7) & ~7;
    float *qT = room, *k = qT + MAX_TOKENS * h, *outT = k + MAX_TOKENS * h;
    float root = 1.0f / sqrtf((float)h);
    norm_heads(b, unit, inverse);
    for (int64_t n = 0; n < heads; n++, weights += T * padded) {
        turned(T, padded, h, unit + n * h, 3 * E, b->qk_scale, root, qT);
        scaled(T, h, unit + E + n * h, 3 * E, b->qk_scale + h, 1.0f, k);
        product(T, padded, h, k, h, 1, qT, padded, weights, padded, 0);
        softmax(T, padded, weights);
        product(h, padded, T, unit + 2 * E + n * h, 1, 3 * E, weights, padded, outT, padded, 0);
        turned_back(T, padded, h, outT, mixed + n * h, E);
    }
}

/* Sets d_qkv [T, 3, E] and adds to d_qk_scale. `room`: 3 MAX_TOKENS h + MAX_TOKENS^2. */
static void attention_backward(const struct attention *b, const float *d_mixed, const float *unit,
                               const float *inverse, const float *weights, float *d_qkv,
                               float *room) {
    int64_t T = b->tokens, E = b->width, heads = b->heads, h = E / heads, padded = (T + 7) & ~7;
    float *q = room, *k = q + MAX_TOKENS * h, *rowsT = k + MAX_TOKENS * h;
    float *d_s = rowsT + MAX_TOKENS * h, root = 1.0f / sqrtf((float)h);
    float *gain = q; /* q is free again when gain is needed */
    for (int64_t n = 0; n < heads; n++, weights += T * padded) {
        const float *d_o = d_mixed + n * h;
        scaled(T, h, unit + n * h, 3 * E, b->qk_scale, root, q);
        scaled(T, h, unit + E + n * h, 3 * E, b->qk_scale + h, 1.0f, k);
        turned(T, padded, h, d_o, E, NULL, 1.0f, rowsT);
        product(T, padded, h, unit + 2 * E + n * h, 3 * E, 1, rowsT, padded, d_s, padded, 0);
        softmax_backward(T, padded, weights, d_s);
        float *d_q = d_qkv + n * h, *d_k = d_q + E, *d_v = d_k + E;
        product(T, h, T, weights, padded, 1, d_o, E, d_v, 3 * E, 0);
        product(T, h, T, d_s, padded, 1, q, h, d_k, 3 * E, 0);
        product(h, padded, T, k, 1, h, d_s, padded, rowsT, padded, 0);
        turned_back(T, padded, h, rowsT, d_q, 3 * E);
        for (int64_t part = 0; part < 2; part++) {
            float factor = part ? 1.0f : root, *d_scale = b->d_qk_scale + part * h;
            EACH(j, h) AT(gain, j) = CONST_AT(b->qk_scale, part * h + j) * factor;
            for (int64_t t = 0; t < T; t++) {
                float *d = d_qkv + t * 3 * E + part * E + n * h;
                const float *u = unit + t * 3 * E + part * E + n * h;
                EACH(j, h) AT(d_scale, j) += CONST_AT(d, j) * CONST_AT(u, j) * factor;
                norm_backward(d, u, gain, inverse[t * 2 * heads + part * heads + n], h, d);
            }
        }
    }
}
