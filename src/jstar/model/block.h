/* A DiT block of a small network, forward and backward, on a CPU in float32: a part of network.c.
 *
 * At these sizes torch spends most of a step moving activations through memory and preparing
 * matrix products of a few dozen columns. Here a tile of 64 or 128 tokens passes through the block
 * while it lies in the cache. Equations: `Block` in block.py; names of gradients begin with d_.
 * All widths, also that of a head, are multiples of STEP: 8, or for narrower heads 4.
 */
#include "attention.h"

/* One block and one batch of B images of T tokens, width E. Matrices are row-major. */
struct block {
    int64_t tokens, width, heads;
    const float *x;                            /* [B, T, E] */
    const float *modulation;                   /* [B, 6, E]: shift, scale, gate; twice */
    const float *qkv_w, *proj_w, *up_w, *down_w; /* as pack_block lays them, for this pass */
    const float *qk_scale;                     /* [2, E / heads] */
    /* Kept for the backward pass, or (keep = 0) room for the largest tile alone. */
    float *unit;    /* [B, T, 3, E]: normed queries, normed keys, values */
    float *inverse; /* [B, T, 2, heads]: 1 / rms of queries and keys */
    float *weights; /* [B, heads, T keys, T queries rounded up to 8] */
    float *mixed;   /* [B, T, E]: weighted values */
    float *branch1; /* [B, T, E]: what gate 1 multiplies */
    float *middle;  /* [B, T, E]: x between attention and MLP */
    float *hidden;  /* [B, T, 4E]: before the GELU */
    float *branch2; /* [B, T, E]: what gate 2 multiplies */
    float *out;     /* [B, T, E] */
    /* Backward only. */
    const float *d_out;                         /* [B, T, E] */
    float *d_x, *d_modulation;                  /* as x, modulation */
    float *d_qkv, *d_proj, *d_up, *d_down, *d_qk_scale; /* sums of all its images */
    float *copies;                              /* room for DEEP rows of 4E */
};

/* ---- the block ---- */

/* d_w = or += d_y^T x, d_w [out, in]. */
static void gradient(const struct block *b, int64_t rows, int64_t in, int64_t out,
                     const float *d_y, const float *x, float *d_w, int add) {
    product_wide(out, in, rows, d_y, 1, out, x, in, d_w, in, add, b->copies);
}

/* Images of a tile: more where one fetches, and adds to, many weights. */
static int64_t tile_images(int64_t tokens, int64_t width) {
    int64_t most = width < 128 ? 64 : 128;
    return tokens < most ? most / tokens : 1;
}

/* Lay a block's weights, which are as nn.Linear has them ([out, in]), into `room` for 12 E^2 in
 * panels for a pass. Narrow ones stay as they are in the backward pass, and no room is needed. */
static void pack_block(struct block *b, int backward, float *room) {
    int64_t E = b->width;
    if (backward && E < COPIED) return;
    const float **w[] = {&b->qkv_w, &b->proj_w, &b->up_w, &b->down_w};
    int64_t out[] = {3 * E, E, 4 * E, E}, in[] = {E, E, E, 4 * E};
    for (int k = 0; k < 4; k++) {
        float *end = panels_of(*w[k], out[k], in[k], backward, room);
        *w[k] = room;
        room = end;
    }
}

/* All of `images`. keep: whether the backward pass will follow. Returns 0, or 1 without memory. */
static int block_forward(const struct block *b, int64_t images, int keep) {
    int64_t T = b->tokens, E = b->width, heads = b->heads, step = tile_images(T, E), R = step * T;
    int64_t padded = (T + 7) & ~7;
    float *h = malloc(sizeof(float) * (R * 4 * E + 3 * MAX_TOKENS * (E / heads)));
    if (!h) return 1;
    float *room = h + R * 4 * E;
    struct attention heads_of = {T, E, heads, b->qk_scale, NULL};
    for (int64_t i = 0; i < images; i += step) {
        int64_t n = images - i < step ? images - i : step, rows = n * T, r = i * T;
        int64_t kept = keep ? i : 0;
        int64_t s = kept * T;
        const float *x = b->x + r * E, *m = b->modulation + i * 6 * E;
        float *unit = b->unit + s * 3 * E, *mixed = b->mixed + s * E, *middle = b->middle + s * E;
        float *branch1 = b->branch1 + s * E, *branch2 = b->branch2 + s * E;
        float *hidden = b->hidden + s * 4 * E;
        for (int64_t a = 0; a < n; a++)
            modulated_norm(T, E, x + a * T * E, m + a * 6 * E, m + (a * 6 + 1) * E, h + a * T * E);
        linear(rows, E, 3 * E, h, b->qkv_w, unit, 1);
        for (int64_t a = 0; a < n; a++)
            attention(&heads_of, unit + a * T * 3 * E, b->inverse + (s + a * T) * 2 * heads,
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

/* Gradients of all images, from what the forward pass kept. */
static int block_backward(const struct block *b, int64_t images) {
    int64_t T = b->tokens, E = b->width, heads = b->heads, h = E / heads, step = tile_images(T, E);
    int64_t R = step * T, padded = (T + 7) & ~7;
    float *room = malloc(sizeof(float) * (R * 15 * E + 3 * E + MAX_TOKENS * (3 * h + MAX_TOKENS)));
    if (!room) return 1;
    float *d_branch = room, *d_h = d_branch + R * E, *act = d_h + R * E, *d_hidden = act + R * 4 * E;
    float *d_qkv = d_hidden + R * 4 * E, *normed = d_qkv + R * 3 * E, *d_middle = normed + R * E;
    float *row = d_middle + R * E, *space = row + 3 * E;
    struct attention heads_of = {T, E, heads, b->qk_scale, b->d_qk_scale};
    EACH(j, 2 * h) AT(b->d_qk_scale, j) = (vec){0};
    for (int64_t i = 0; i < images; i += step) {
        int64_t n = images - i < step ? images - i : step, rows = n * T, r = i * T;
        int add = i > 0;
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
        gradient(b, rows, 4 * E, E, d_branch, act, b->d_down, add);
        gradient(b, rows, E, 4 * E, d_hidden, normed, b->d_up, add);
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
        gradient(b, rows, E, E, d_branch, b->mixed + r * E, b->d_proj, add);
        linear(rows, E, E, d_branch, b->proj_w, d_h, E >= COPIED);
        for (int64_t a = 0; a < n; a++)
            attention_backward(&heads_of, d_h + a * T * E, b->unit + (r + a * T) * 3 * E,
                               b->inverse + (r + a * T) * 2 * heads,
                               b->weights + (i + a) * heads * T * padded, d_qkv + a * T * 3 * E,
                               space);
        gradient(b, rows, E, 3 * E, d_qkv, normed, b->d_qkv, add);
        linear(rows, 3 * E, E, d_qkv, b->qkv_w, d_h, E >= COPIED);
        memcpy(d_x, d_middle, sizeof(float) * rows * E);
        for (int64_t a = 0; a < n; a++)
            modulated_norm_backward(T, E, d_h + a * T * E, x + a * T * E, m + (a * 6 + 1) * E,
                                    d_x + a * T * E, d_m + a * 6 * E, row);
    }
    free(room);
    return 0;
}
