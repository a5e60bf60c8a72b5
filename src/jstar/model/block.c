/* A whole DiT block of a small network, forward and backward, on a CPU in float32.
 *
 * Compiled on first use by fast_block.py; where that does not pay block.py does the same in torch.
 * At these sizes torch spends most of a step moving activations through memory and preparing
 * matrix products of a few dozen columns. Here a tile of about 64 tokens passes through the block
 * while it lies in the cache. Equations: `Block` in block.py; names of gradients begin with d_.
 *
 * Images [first, stop) of a call are a slice with its own sums of weight gradients: the result
 * does not depend on the number of threads. All widths, also that of a head, are multiples of STEP:
 * 8, or for narrower heads 4.
 */
#include <stdlib.h>

#include "exp2.h"
#include "panels.h"

#define EPS 1e-6f     /* NORM_EPS of block.py */
#define TILE_TOKENS 64
#define MAX_TOKENS 64 /* of an image; fast_block.py says the same */

/* One block and one batch of B images of T tokens, width E. Matrices are row-major. */
struct block {
    int64_t tokens, width, heads;
    const float *x;                            /* [B, T, E] */
    const float *modulation;                   /* [B, 6, E]: shift, scale, gate; twice */
    const float *qkv_w, *proj_w, *up_w, *down_w; /* as jstar_block_pack lays them, for this pass */
    const float *qk_scale;                     /* [2, E / heads] */
    /* Kept for the backward pass, or (keep = 0) room for the largest tile alone. */
    float *unit;    /* [B, T, 3, E]: normed queries, normed keys, values */
    float *inverse; /* [B, T, 2, heads]: 1 / rms of queries and keys */
    float *weights; /* [B, heads, T, T rounded up to 8] */
    float *mixed;   /* [B, T, E]: weighted values */
    float *branch1; /* [B, T, E]: what gate 1 multiplies */
    float *middle;  /* [B, T, E]: x between attention and MLP */
    float *hidden;  /* [B, T, 4E]: before the GELU */
    float *branch2; /* [B, T, E]: what gate 2 multiplies */
    float *out;     /* [B, T, E] */
    /* Backward only. */
    const float *d_out;                         /* [B, T, E] */
    float *d_x, *d_modulation;                  /* as x, modulation */
    float *d_qkv, *d_proj, *d_up, *d_down, *d_qk_scale; /* sums of this slice */
};

/* ---- linear layers ---- */

/* d_w = or += d_y^T x, d_w [out, in]; at most as many rows as a tile has. */
static void gradient(int64_t rows, int64_t in, int64_t out, const float *d_y, const float *x,
                     float *d_w, int add) {
    float panel[TILE_TOKENS * 2 * LANES];
    if (in < COPIED) {
        product(out, in, rows, d_y, 1, out, x, in, d_w, in, add);
        return;
    }
    for (int64_t j = 0, width; j < in; j += width) {
        width = panel_width(in - j);
        copy_panel(rows, width, x + j, in, panel);
        product_packed(out, width, rows, d_y, 1, out, panel, d_w + j, in, add);
    }
}

/* ---- one row ---- */

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

/* ---- parts of the block, for the tokens of one image (T of them) ---- */

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

/* Normed queries (over the root of their width) and keys of one head, [T, h] each. */
static void queries_keys(const struct block *b, const float *unit, int64_t h, float *q, float *k) {
    const float *scale = b->qk_scale;
    float root = 1.0f / sqrtf((float)h);
    for (int64_t t = 0; t < b->tokens; t++, unit += 3 * b->width, q += h, k += h)
        EACH(j, h) {
            AT(q, j) = CONST_AT(unit, j) * CONST_AT(scale, j) * root;
            AT(k, j) = CONST_AT(unit, b->width + j) * CONST_AT(scale, h + j);
        }
}

/* [T, h] with rows `stride` apart -> [h, padded], the rest zero. */
static void transposed(int64_t T, int64_t padded, int64_t h, const float *x, int64_t stride,
                       float *y) {
    for (int64_t j = 0; j < h; j++)
        for (int64_t t = 0; t < padded; t++) y[j * padded + t] = t < T ? x[t * stride + j] : 0.0f;
}

static void softmax(int64_t T, int64_t padded, float *row) {
    float top = row[0];
    for (int64_t t = 1; t < T; t++) top = row[t] > top ? row[t] : top;
    for (int64_t t = T; t < padded; t++) row[t] = -INFINITY;
    for (int64_t t = 0; t < padded; t++) row[t] = exp2_fast((row[t] - top) * LOG2E);
    vec sum = {0};
    for (int64_t t = T; t < padded; t++) row[t] = 0.0f;
    EACH(t, padded) sum += AT(row, t);
    float share = 1.0f / total(sum);
    EACH(t, padded) AT(row, t) *= share;
}

/* Attention of one image, from raw queries, keys and values in `unit`, which it norms in place.
 * `room`: 3 MAX_TOKENS h. */
static void attention(const struct block *b, float *unit, float *inverse, float *weights,
                      float *mixed, float *room) {
    int64_t T = b->tokens, E = b->width, heads = b->heads, h = E / heads, padded = (T + 7) & ~7;
    float *q = room, *k = q + MAX_TOKENS * h, *kT = k + MAX_TOKENS * h;
    for (int64_t t = 0; t < T; t++)
        for (int64_t n = 0; n < 2 * heads; n++) {
            float *row = unit + t * 3 * E + n * h, size = inverse_rms(row, h);
            inverse[t * 2 * heads + n] = size;
            EACH(j, h) AT(row, j) *= size;
        }
    for (int64_t n = 0; n < heads; n++, weights += T * padded) {
        queries_keys(b, unit + n * h, h, q, k);
        transposed(T, padded, h, k, h, kT);
        product(T, padded, h, q, h, 1, kT, padded, weights, padded, 0);
        for (int64_t t = 0; t < T; t++) softmax(T, padded, weights + t * padded);
        product(T, h, T, weights, padded, 1, unit + 2 * E + n * h, 3 * E, mixed + n * h, E, 0);
    }
}

/* Sets d_qkv [T, 3, E] and adds to d_qk_scale. `room`: 3 MAX_TOKENS h + MAX_TOKENS^2. */
static void attention_backward(const struct block *b, const float *d_mixed, const float *unit,
                               const float *inverse, const float *weights, float *d_qkv,
                               float *room) {
    int64_t T = b->tokens, E = b->width, heads = b->heads, h = E / heads, padded = (T + 7) & ~7;
    float *q = room, *k = q + MAX_TOKENS * h, *vT = k + MAX_TOKENS * h, *d_s = vT + MAX_TOKENS * h;
    float root = 1.0f / sqrtf((float)h), *gain = q; /* q is free again when gain is needed */
    for (int64_t n = 0; n < heads; n++, weights += T * padded) {
        const float *d_o = d_mixed + n * h;
        queries_keys(b, unit + n * h, h, q, k);
        transposed(T, padded, h, unit + 2 * E + n * h, 3 * E, vT);
        product(T, padded, h, d_o, E, 1, vT, padded, d_s, padded, 0);
        for (int64_t t = 0; t < T; t++) {
            const float *p = weights + t * padded;
            float *row = d_s + t * padded, mean = dot(row, p, padded);
            EACH(j, padded) AT(row, j) = CONST_AT(p, j) * (AT(row, j) - mean);
        }
        float *d_q = d_qkv + n * h, *d_k = d_q + E, *d_v = d_k + E;
        product(T, h, T, weights, 1, padded, d_o, E, d_v, 3 * E, 0);
        product(T, h, T, d_s, padded, 1, k, h, d_q, 3 * E, 0);
        product(T, h, T, d_s, 1, padded, q, h, d_k, 3 * E, 0);
        for (int64_t part = 0; part < 2; part++) {
            float factor = part ? 1.0f : root, *d_scale = b->d_qk_scale + part * h;
            EACH(j, h) AT(gain, j) = CONST_AT(b->qk_scale, part * h + j) * factor;
            for (int64_t t = 0; t < T; t++) {
                float *d = d_qkv + t * 3 * E + part * E + n * h;
                const float *u = unit + t * 3 * E + part * E + n * h;
                EACH(j, h) AT(d_scale, j) += AT(d, j) * CONST_AT(u, j) * factor;
                norm_backward(d, u, gain, inverse[t * 2 * heads + part * heads + n], h, d);
            }
        }
    }
}

/* ---- the block ---- */

static int64_t tile_images(const struct block *b) {
    return b->tokens < TILE_TOKENS ? TILE_TOKENS / b->tokens : 1;
}

static const float *panels_of(const float *w, int64_t out, int64_t in, int backward, float *to) {
    const float *first = to;
    int64_t columns = backward ? in : out;
    for (int64_t j = 0, width; j < columns; j += width) {
        width = panel_width(columns - j);
        if (backward) {
            copy_panel(out, width, w + j, in, to);
            to += out * width;
        } else
            for (int64_t k = 0; k < in; k++)
                for (int64_t i = 0; i < width; i++) *to++ = w[(j + i) * in + k];
    }
    return first;
}

/* Lay the weights, which are as nn.Linear has them ([out, in]), into `room` for 12 E^2 in panels:
 * for the forward pass (x w^T) or the backward pass (d_y w; narrow ones stay as they are). */
void jstar_block_pack(struct block *b, int backward, float *room) {
    int64_t E = b->width;
    if (backward && E < COPIED) return;
    b->qkv_w = panels_of(b->qkv_w, 3 * E, E, backward, room);
    b->proj_w = panels_of(b->proj_w, E, E, backward, room + 3 * E * E);
    b->up_w = panels_of(b->up_w, 4 * E, E, backward, room + 4 * E * E);
    b->down_w = panels_of(b->down_w, E, 4 * E, backward, room + 8 * E * E);
}

/* Images [first, stop). keep: whether the backward pass will follow. Returns 0, or 1 without
 * memory. */
int jstar_block_forward(const struct block *b, int64_t first, int64_t stop, int keep) {
    int64_t T = b->tokens, E = b->width, heads = b->heads, step = tile_images(b), R = step * T;
    int64_t padded = (T + 7) & ~7;
    float *h = malloc(sizeof(float) * (R * 4 * E + 3 * MAX_TOKENS * (E / heads)));
    if (!h) return 1;
    float *room = h + R * 4 * E;
    for (int64_t i = first; i < stop; i += step) {
        int64_t n = stop - i < step ? stop - i : step, rows = n * T, r = i * T, kept = keep ? i : 0;
        int64_t s = kept * T;
        const float *x = b->x + r * E, *m = b->modulation + i * 6 * E;
        float *unit = b->unit + s * 3 * E, *mixed = b->mixed + s * E, *middle = b->middle + s * E;
        float *branch1 = b->branch1 + s * E, *branch2 = b->branch2 + s * E;
        float *hidden = b->hidden + s * 4 * E;
        for (int64_t a = 0; a < n; a++)
            modulated_norm(T, E, x + a * T * E, m + a * 6 * E, m + (a * 6 + 1) * E, h + a * T * E);
        linear(rows, E, 3 * E, h, b->qkv_w, unit, 1);
        for (int64_t a = 0; a < n; a++)
            attention(b, unit + a * T * 3 * E, b->inverse + (s + a * T) * 2 * heads,
                      b->weights + (kept + a) * heads * T * padded, mixed + a * T * E, room);
        linear(rows, E, E, mixed, b->proj_w, branch1, 1);
        for (int64_t a = 0; a < n; a++) {
            const float *part = m + a * 6 * E;
            int64_t at = a * T * E;
            gated(T, E, x + at, part + 2 * E, branch1 + at, middle + at);
            modulated_norm(T, E, middle + at, part + 3 * E, part + 4 * E, h + at);
        }
        linear(rows, E, 4 * E, h, b->up_w, hidden, 1);
        for (int64_t j = 0; j < rows * 4 * E; j++) {
            float slope;
            h[j] = gelu(hidden[j], &slope);
        }
        linear(rows, 4 * E, E, h, b->down_w, branch2, 1);
        for (int64_t a = 0; a < n; a++)
            gated(T, E, middle + a * T * E, m + (a * 6 + 5) * E, branch2 + a * T * E,
                  b->out + (r + a * T) * E);
    }
    free(h);
    return 0;
}

/* Gradients of images [first, stop), from what the forward pass kept. */
int jstar_block_backward(const struct block *b, int64_t first, int64_t stop) {
    int64_t T = b->tokens, E = b->width, heads = b->heads, h = E / heads, step = tile_images(b);
    int64_t R = step * T, padded = (T + 7) & ~7;
    float *room = malloc(sizeof(float) * (R * 15 * E + 3 * E + MAX_TOKENS * (3 * h + MAX_TOKENS)));
    if (!room) return 1;
    float *d_branch = room, *d_h = d_branch + R * E, *act = d_h + R * E, *d_hidden = act + R * 4 * E;
    float *d_qkv = d_hidden + R * 4 * E, *normed = d_qkv + R * 3 * E, *d_middle = normed + R * E;
    float *row = d_middle + R * E, *space = row + 3 * E;
    EACH(j, 2 * h) AT(b->d_qk_scale, j) = (vec){0};
    for (int64_t i = first; i < stop; i += step) {
        int64_t n = stop - i < step ? stop - i : step, rows = n * T, r = i * T;
        int add = i > first;
        const float *x = b->x + r * E, *m = b->modulation + i * 6 * E, *d_out = b->d_out + r * E;
        const float *middle = b->middle + r * E, *hidden = b->hidden + r * 4 * E;
        float *d_m = b->d_modulation + i * 6 * E, *d_x = b->d_x + r * E;
        for (int64_t a = 0; a < n; a++) {
            int64_t at = a * T * E, am = a * 6 * E;
            gated_backward(T, E, d_out + at, m + am + 5 * E, b->branch2 + r * E + at,
                           d_branch + at, d_m + am + 5 * E);
            modulated_norm(T, E, middle + at, m + am + 3 * E, m + am + 4 * E, normed + at);
        }
        linear(rows, E, 4 * E, d_branch, b->down_w, d_hidden, E >= COPIED);
        for (int64_t j = 0; j < rows * 4 * E; j++) {
            float slope;
            act[j] = gelu(hidden[j], &slope);
            d_hidden[j] *= slope;
        }
        gradient(rows, 4 * E, E, d_branch, act, b->d_down, add);
        gradient(rows, E, 4 * E, d_hidden, normed, b->d_up, add);
        linear(rows, 4 * E, E, d_hidden, b->up_w, d_h, E >= COPIED);
        memcpy(d_middle, d_out, sizeof(float) * rows * E);
        for (int64_t a = 0; a < n; a++) {
            int64_t at = a * T * E, am = a * 6 * E;
            modulated_norm_backward(T, E, d_h + at, middle + at, m + am + 4 * E, d_middle + at,
                                    d_m + am + 3 * E, row);
            gated_backward(T, E, d_middle + at, m + am + 2 * E, b->branch1 + r * E + at,
                           d_branch + at, d_m + am + 2 * E);
            modulated_norm(T, E, x + at, m + am, m + am + E, normed + at);
        }
        gradient(rows, E, E, d_branch, b->mixed + r * E, b->d_proj, add);
        linear(rows, E, E, d_branch, b->proj_w, d_h, E >= COPIED);
        for (int64_t a = 0; a < n; a++)
            attention_backward(b, d_h + a * T * E, b->unit + (r + a * T) * 3 * E,
                               b->inverse + (r + a * T) * 2 * heads,
                               b->weights + (i + a) * heads * T * padded, d_qkv + a * T * 3 * E,
                               space);
        gradient(rows, E, 3 * E, d_qkv, normed, b->d_qkv, add);
        linear(rows, 3 * E, E, d_qkv, b->qkv_w, d_h, E >= COPIED);
        memcpy(d_x, d_middle, sizeof(float) * rows * E);
        for (int64_t a = 0; a < n; a++)
            modulated_norm_backward(T, E, d_h + a * T * E, x + a * T * E, m + (a * 6 + 1) * E,
                                    d_x + a * T * E, d_m + a * 6 * E, row);
    }
    free(room);
    return 0;
}
