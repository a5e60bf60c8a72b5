/* A whole small network, forward and backward, on a CPU in float32.
 *
 * Compiled on first use by fast_network.py; where that does not pay dit.py does the same in torch.
 * Of a step of the narrowest networks torch spends more on calling what lies outside the blocks than
 * on computing them. Equations: `DiT` in dit.py; names of gradients begin with d_.
 *
 * A batch is done slice by slice, each with its own sums of weight gradients: the result does not
 * depend on the number of threads.
 */
#include "room.h"

/* Floats that one slice needs. */
int64_t jstar_network_room(const struct network *n, int keep) {
    float base;
    struct network of = *n;
    of.room = &base; /* only differences are used */
    of.images = n->images < n->slice ? n->images : n->slice;
    return lay(&of, keep).total;
}

/* ---- the weights in panels ---- */

struct panels {
    const float *patches, *noise1, *noise2, *last_modulation, *last, *modulation, *blocks;
    int64_t total;
};

static struct panels panels_at(const struct network *n, int backward) {
    int64_t E = n->width;
    struct panels p = {.patches = n->packed};
    if (backward) {
        p.blocks = n->packed;
        p.total = E < COPIED ? 0 : n->depth * 12 * E * E;
        return p;
    }
    p.noise1 = p.patches + E * patch_floats(n);
    p.noise2 = p.noise1 + E * n->features;
    p.last_modulation = p.noise2 + E * E;
    p.last = p.last_modulation + 2 * E * E;
    p.modulation = p.last + padded_patch(n) * E;
    p.blocks = p.modulation + n->depth * 6 * E * E;
    p.total = p.blocks - n->packed + n->depth * 12 * E * E;
    return p;
}

int64_t jstar_network_packed(const struct network *n, int backward) {
    float base;
    struct network of = *n;
    of.packed = &base;
    return panels_at(&of, backward).total;
}

/* Lay the weights into jstar_network_packed floats as the products of a pass read them. */
void jstar_network_pack(const struct network *n, int backward, float *to) {
    struct network of = *n;
    of.packed = to;
    struct panels p = panels_at(&of, backward);
    struct room none = {0};
    int64_t E = n->width;
    if (!backward) {
        const float *const *w = n->weights;
        to = panels_of(w[PATCHES], E, patch_floats(n), 0, to);
        to = panels_of(w[NOISE1], E, n->features, 0, to);
        to = panels_of(w[NOISE2], E, E, 0, to);
        to = panels_of(w[LAST_MODULATION], 2 * E, E, 0, to);
        to = panels_of(w[LAST], patch_floats(n), E, 0, to);
        for (int64_t k = 0; k < n->depth; k++)
            to = panels_of(weight_of(n, k, MODULATION), 6 * E, E, 0, to);
    }
    for (int64_t k = 0; k < n->depth; k++) {
        struct block b = block_of(n, &none, k, 0);
        pack_block(&b, backward, (float *)p.blocks + k * 12 * E * E);
    }
}

static struct block packed_block(const struct network *n, const struct room *r,
                                 const struct panels *p, int64_t k, int keep, int backward) {
    struct block b = block_of(n, r, k, keep);
    int64_t E = n->width;
    if (!backward || E >= COPIED) {
        b.qkv_w = p->blocks + k * 12 * E * E;
        b.proj_w = b.qkv_w + 3 * E * E;
        b.up_w = b.proj_w + E * E;
        b.down_w = b.up_w + 4 * E * E;
    }
    return b;
}

/* ---- the ends of the network ---- */

/* One image as tokens [T, padded patch], a patch's numbers ordered channel, row, column; or back. */
static void patches_of(const struct network *n, const float *image, float *tokens) {
    int64_t p = n->patch, P = padded_patch(n), W = n->columns * p, H = n->rows * p;
    for (int64_t t = 0; t < tokens_of(n); t++, tokens += P) {
        const float *corner = image + t / n->columns * p * W + t % n->columns * p;
        int64_t j = 0;
        for (int64_t c = 0; c < n->channels; c++)
            for (int64_t a = 0; a < p; a++)
                for (int64_t b = 0; b < p; b++) tokens[j++] = corner[(c * H + a) * W + b];
        while (j < P) tokens[j++] = 0.0f;
    }
}

static void image_of(const struct network *n, const float *tokens, float *image) {
    int64_t p = n->patch, P = padded_patch(n), W = n->columns * p, H = n->rows * p;
    for (int64_t t = 0; t < tokens_of(n); t++, tokens += P) {
        float *corner = image + t / n->columns * p * W + t % n->columns * p;
        int64_t j = 0;
        for (int64_t c = 0; c < n->channels; c++)
            for (int64_t a = 0; a < p; a++)
                for (int64_t b = 0; b < p; b++) corner[(c * H + a) * W + b] = tokens[j++];
    }
}

static void embed(const struct network *n, const struct room *r, const struct panels *p) {
    int64_t B = n->images, T = tokens_of(n), E = n->width, C = n->channels, P = padded_patch(n);
    const float *const *w = n->weights;
    for (int64_t i = 0; i < B; i++)
        patches_of(n, n->x + i * C * T * n->patch * n->patch, r->tokens + i * T * P);
    affine(B * T, patch_floats(n), E, r->tokens, P, p->patches, w[PATCHES + 1], r->streams);
    for (int64_t i = 0; i < B; i++)
        EACH(j, T * E) AT(r->streams + i * T * E, j) += CONST_AT(n->positions, j);
    affine(B, n->features, E, n->sinusoids, n->features, p->noise1, w[NOISE1 + 1], r->hidden);
    silu(B * E, r->hidden, r->condition);
    affine(B, E, E, r->condition, E, p->noise2, w[NOISE2 + 1], r->sum);
    if (n->classes)
        for (int64_t i = 0; i < B; i++)
            EACH(j, E) AT(r->sum + i * E, j) += CONST_AT(w[LABELS] + n->labels[i] * E, j);
    silu(B * E, r->sum, r->condition);
    for (int64_t k = 0; k < n->depth; k++)
        affine(B, E, 6 * E, r->condition, E, p->modulation + k * 6 * E * E,
               weight_of(n, k, MODULATION + 1), r->modulation + k * B * 6 * E);
    affine(B, E, 2 * E, r->condition, E, p->last_modulation, w[LAST_MODULATION + 1],
           r->last_modulation);
}

/* Returns 0, or 1 without memory. */
static int forward(const struct network *n, int keep) {
    struct room r = lay(n, keep);
    struct panels p = panels_at(n, 0);
    int64_t B = n->images, T = tokens_of(n), E = n->width, P = padded_patch(n);
    embed(n, &r, &p);
    for (int64_t k = 0; k < n->depth; k++) {
        struct block b = packed_block(n, &r, &p, k, keep, 0);
        if (block_forward(&b, B, keep)) return 1;
    }
    float *h = malloc(sizeof(float) * T * (E + P));
    if (!h) return 1;
    const float *x = r.streams + (keep ? n->depth : n->depth % 2) * B * T * E;
    for (int64_t i = 0; i < B; i++) {
        const float *shift = r.last_modulation + i * 2 * E;
        modulated_norm(T, E, x + i * T * E, shift, shift + E, h);
        affine(T, E, patch_floats(n), h, E, p.last, n->weights[LAST + 1], h + T * E);
        image_of(n, h + T * E, n->out + i * T * patch_floats(n));
    }
    free(h);
    return 0;
}

/* ---- the backward pass ---- */

/* Where every weight's gradient begins in d_weights, in the order of the weights. */
static float *gradient_of(const struct network *n, int64_t index) {
    int64_t E = n->width, P = patch_floats(n), h = E / n->heads;
    int64_t ends[] = {E * P, E, E * n->features, E, E * E, E, 2 * E * E, 2 * E, P * E, P,
                      n->classes ? (n->classes + 1) * E : 0};
    int64_t of_block[] = {6 * E * E, 6 * E, 3 * E * E, E * E, 4 * E * E, 4 * E * E, 2 * h};
    float *at = n->d_weights;
    for (int64_t k = 0; k < index; k++)
        at += k < FIRST_BLOCK ? ends[k] : of_block[(k - FIRST_BLOCK) % OF_A_BLOCK];
    return at;
}

/* The gradients of a layer [out, in] and its bias. */
static void layer_backward(const struct network *n, const struct room *r, int64_t index, int64_t rows,
                           int64_t in, int64_t out, const float *d_y, const float *x) {
    affine_backward(rows, in, out, d_y, out, x, gradient_of(n, index), gradient_of(n, index + 1), 0,
                    r->copies);
}

/* The gradients of the patches' layer; room for [E, padded patch]. */
static void patches_backward(const struct network *n, const struct room *r, const float *d_y,
                             float *room) {
    int64_t E = n->width, P = patch_floats(n), padded = padded_patch(n);
    float *d_w = gradient_of(n, PATCHES);
    affine_backward(n->images * tokens_of(n), padded, E, d_y, E, r->tokens, room,
                    gradient_of(n, PATCHES + 1), 0, r->copies);
    for (int64_t i = 0; i < E; i++) memcpy(d_w + i * P, room + i * padded, sizeof(float) * P);
}

/* Gradient with respect to x; room for [E + T, padded patch]. */
static void input_backward(const struct network *n, const float *d_y, float *room) {
    int64_t T = tokens_of(n), E = n->width, P = patch_floats(n), padded = padded_patch(n);
    float *d_tokens = room + E * padded;
    for (int64_t i = 0; i < E; i++)
        for (int64_t j = 0; j < padded; j++)
            room[i * padded + j] = j < P ? n->weights[PATCHES][i * P + j] : 0.0f;
    for (int64_t i = 0; i < n->images; i++) {
        product(T, padded, E, d_y + i * T * E, E, 1, room, padded, d_tokens, padded, 0);
        image_of(n, d_tokens, n->d_x + i * T * P);
    }
}

/* From the gradient of the condition [B, E], which it changes; `d_s` is room for as much. */
static void condition_backward(const struct network *n, const struct room *r, float *d_c,
                               float *d_s) {
    int64_t B = n->images, E = n->width;
    silu_backward(B * E, r->sum, d_c);
    if (n->classes) {
        float *d_labels = gradient_of(n, LABELS);
        memset(d_labels, 0, sizeof(float) * (n->classes + 1) * E);
        for (int64_t i = 0; i < B; i++)
            EACH(j, E) AT(d_labels + n->labels[i] * E, j) += CONST_AT(d_c + i * E, j);
    }
    silu(B * E, r->hidden, d_s);
    layer_backward(n, r, NOISE2, B, E, E, d_c, d_s);
    product_wide(B, E, E, d_c, E, 1, n->weights[NOISE2], E, d_s, E, 0, r->copies);
    silu_backward(B * E, r->hidden, d_s);
    layer_backward(n, r, NOISE1, B, n->features, E, d_s, n->sinusoids);
}

/* Sets the gradient of the last stream, of its modulation's layer and of the condition. */
static void last_backward(const struct network *n, const struct room *r, float *d_stream,
                          float *d_condition, float *room) {
    int64_t B = n->images, T = tokens_of(n), E = n->width, P = patch_floats(n), Q = padded_patch(n);
    float *d_modulation = room, *row = d_modulation + B * 2 * E, *h = row + 3 * E;
    float *d_h = h + T * E, *d_y = d_h + T * E;
    const float *x = r->streams + n->depth * B * T * E;
    memset(d_stream, 0, sizeof(float) * B * T * E);
    for (int64_t i = 0; i < B; i++, x += T * E, d_stream += T * E) {
        const float *shift = r->last_modulation + i * 2 * E;
        patches_of(n, n->d_out + i * T * P, d_y);
        modulated_norm(T, E, x, shift, shift + E, h);
        affine_backward(T, E, P, d_y, Q, h, gradient_of(n, LAST), gradient_of(n, LAST + 1), i > 0,
                        r->copies);
        product(T, E, P, d_y, Q, 1, n->weights[LAST], E, d_h, E, 0);
        modulated_norm_backward(T, E, d_h, x, shift + E, d_stream, d_modulation + i * 2 * E, row);
    }
    layer_backward(n, r, LAST_MODULATION, B, E, 2 * E, d_modulation, r->condition);
    product_wide(B, E, 2 * E, d_modulation, 2 * E, 1, n->weights[LAST_MODULATION], E, d_condition, E,
                 0, r->copies);
}

/* All gradients, from what the forward pass kept. Returns 0, or 1 without memory. */
static int backward(const struct network *n) {
    struct room r = lay(n, 1);
    struct panels p = panels_at(n, 1);
    int64_t B = n->images, T = tokens_of(n), E = n->width, Q = padded_patch(n);
    int64_t at_ends = B * 2 * E + 3 * E + T * (2 * E + Q), patches = (E + T) * Q;
    int64_t more = at_ends > patches ? at_ends : patches;
    int64_t widest = 4 * E > Q ? 4 * E : Q;
    if (n->features > widest) widest = n->features;
    float *d_stream = malloc(sizeof(float) * (2 * B * T * E + 8 * B * E + more + DEEP * widest));
    if (!d_stream) return 1;
    float *other = d_stream + B * T * E, *d_condition = other + B * T * E;
    float *d_modulation = d_condition + B * E, *spare = d_modulation + B * 6 * E, *first = d_stream;
    float *room = spare + B * E;
    r.copies = room + more;
    last_backward(n, &r, d_stream, d_condition, room);
    int failed = 0;
    for (int64_t k = n->depth - 1; k >= 0 && !failed; k--) {
        struct block b = packed_block(n, &r, &p, k, 1, 1);
        int64_t at = FIRST_BLOCK + k * OF_A_BLOCK;
        b.d_out = d_stream;
        b.d_x = other;
        b.d_modulation = d_modulation;
        b.d_qkv = gradient_of(n, at + QKV);
        b.d_proj = gradient_of(n, at + PROJ);
        b.d_up = gradient_of(n, at + UP);
        b.d_down = gradient_of(n, at + DOWN);
        b.d_qk_scale = gradient_of(n, at + QK_SCALE);
        b.copies = r.copies;
        failed = block_backward(&b, B);
        layer_backward(n, &r, at + MODULATION, B, E, 6 * E, d_modulation, r.condition);
        product_wide(B, E, 6 * E, d_modulation, 6 * E, 1, weight_of(n, k, MODULATION), E,
                     d_condition, E, 1, r.copies);
        other = d_stream;
        d_stream = b.d_x;
    }
    condition_backward(n, &r, d_condition, spare);
    patches_backward(n, &r, d_stream, room);
    if (n->d_x) input_backward(n, d_stream, room);
    free(first);
    return failed;
}

/* ---- slices ---- */

static struct network slice_of(const struct network *n, int64_t number, int keep) {
    int64_t first = number * n->slice, left = n->images - first;
    int64_t image = tokens_of(n) * patch_floats(n);
    struct network of = *n;
    of.images = left < n->slice ? left : n->slice;
    of.x += first * image;
    of.sinusoids += first * n->features;
    of.labels += n->classes ? first : 0;
    of.room += number * jstar_network_room(n, keep);
    if (n->out) of.out += first * image;
    if (n->d_out) of.d_out += first * image;
    if (n->d_x) of.d_x += first * image;
    if (n->d_weights)
        of.d_weights += number % n->buffers *
                        (gradient_of(n, FIRST_BLOCK + n->depth * OF_A_BLOCK) - n->d_weights);
    return of;
}

/* Slices [first, stop). keep: whether the backward pass will follow. Returns 0, 1 without memory, or
 * 2 where a label is none. */
int jstar_network_forward(const struct network *n, int64_t first, int64_t stop, int keep) {
    for (int64_t k = first; k < stop; k++) {
        struct network of = slice_of(n, k, keep);
        for (int64_t i = 0; n->classes && i < of.images; i++)
            if (of.labels[i] < 0 || of.labels[i] > n->classes) return 2;
        if (forward(&of, keep)) return 1;
    }
    return 0;
}

int jstar_network_backward(const struct network *n, int64_t first, int64_t stop) {
    int failed = 0;
    for (int64_t k = first; k < stop && !failed; k++) {
        struct network of = slice_of(n, k, 1);
        failed = backward(&of);
    }
    return failed;
}

/* Set to, or add, the sum of the gradients of some slices [slices, size], in their order. */
void jstar_network_sum(const float *parts, int64_t slices, int64_t size, int add, float *sum) {
    enum { PIECE = 1024 }; /* stays in the nearest cache */
    for (int64_t j = 0; j < size; j += PIECE) {
        int64_t stop = size - j < PIECE ? size : j + PIECE;
        if (!add) memcpy(sum + j, parts + j, sizeof(float) * (stop - j));
        for (int64_t k = add ? 0 : 1; k < slices; k++)
            for (int64_t i = j; i < stop; i++) sum[i] += parts[k * size + i];
    }
}
