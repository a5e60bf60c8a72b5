/* What a network is to its passes, and where they leave what they need: a part of network.c. */
#include "block.h"

/* Order of the weights, as nn.Linear has them: [out, in] and [out]. */
enum { PATCHES, NOISE1 = 2, NOISE2 = 4, LAST_MODULATION = 6, LAST = 8, LABELS = 10, FIRST_BLOCK = 11 };
enum { MODULATION, QKV = 2, PROJ, UP, DOWN, QK_SCALE, OF_A_BLOCK }; /* of block k: 7 k further */

/* B images of channels x (rows patch) x (columns patch) numbers, T = rows columns tokens; calls name
 * slices of `slice` images, and what they call has one of them as its whole. */
struct network {
    int64_t images, slice, rows, columns, patch, channels, width, heads, depth, features, classes;
    int64_t buffers; /* of gradients; slice k adds to none and sets number k modulo buffers */
    const float *x;              /* [B, C, H, W] */
    const float *sinusoids;      /* [B, F]: of the noise scale */
    const int64_t *labels;       /* [B] */
    const float *positions;      /* [T, E] */
    const float *const *weights; /* LABELS: [classes + 1, E], if there are classes */
    const float *packed;         /* by jstar_network_pack, for this pass */
    float *room;                 /* [slices, jstar_network_room]; kept for the backward pass */
    float *out;                  /* [B, C, H, W] */
    const float *d_out;          /* [B, C, H, W] */
    float *d_x;                  /* [B, C, H, W], or NULL */
    float *d_weights;            /* [buffers, one weight after the other] */
};

/* What a forward pass leaves in `room`. Without a backward pass all blocks share one place. */
struct room {
    float *tokens;          /* [B, T, P]: numbers of a patch, P rounded up to 4 */
    float *hidden;          /* [B, E]: before the first SiLU of the noise embedding */
    float *sum;             /* [B, E]: condition before its SiLU */
    float *condition;       /* [B, E] */
    float *modulation;      /* [depth, B, 6, E] */
    float *last_modulation; /* [B, 2, E] */
    float *streams;         /* [depth + 1 or 2, B, T, E]: what enters and leaves the blocks */
    float *blocks;          /* [depth or 1, block_floats] */
    int64_t block_floats, total;
    float *copies; /* backward only: DEEP rows of the widest matrix, for product_wide */
};

static int64_t tokens_of(const struct network *n) { return n->rows * n->columns; }
static int64_t patch_floats(const struct network *n) { return n->channels * n->patch * n->patch; }
static int64_t padded_patch(const struct network *n) { return (patch_floats(n) + 3) & ~3; }

static int64_t block_images(const struct network *n, int keep) { /* that its parts have room for */
    int64_t tile = tile_images(tokens_of(n), n->width);
    return keep || n->images < tile ? n->images : tile;
}

static struct room lay(const struct network *n, int keep) {
    int64_t B = n->images, T = tokens_of(n), E = n->width, padded = (T + 7) & ~7;
    struct room r = {.tokens = n->room};
    r.hidden = r.tokens + B * T * padded_patch(n);
    r.sum = r.hidden + B * E;
    r.condition = r.sum + B * E;
    r.modulation = r.condition + B * E;
    r.last_modulation = r.modulation + n->depth * B * 6 * E;
    r.streams = r.last_modulation + B * 2 * E;
    r.blocks = r.streams + (keep ? n->depth + 1 : 2) * B * T * E;
    r.block_floats = block_images(n, keep) * T * (11 * E + 2 * n->heads + n->heads * padded);
    r.total = r.blocks - n->room + (keep ? n->depth : 1) * r.block_floats;
    return r;
}

static const float *weight_of(const struct network *n, int64_t k, int64_t part) {
    return n->weights[FIRST_BLOCK + k * OF_A_BLOCK + part];
}

static struct block block_of(const struct network *n, const struct room *r, int64_t k, int keep) {
    int64_t B = n->images, T = tokens_of(n), E = n->width, some = block_images(n, keep) * T;
    float *at = r->blocks + (keep ? k : 0) * r->block_floats;
    struct block b = {.tokens = T, .width = E, .heads = n->heads};
    b.x = r->streams + (keep ? k : k % 2) * B * T * E;
    b.out = r->streams + (keep ? k + 1 : (k + 1) % 2) * B * T * E;
    b.modulation = r->modulation + k * B * 6 * E;
    b.qkv_w = weight_of(n, k, QKV);
    b.proj_w = weight_of(n, k, PROJ);
    b.up_w = weight_of(n, k, UP);
    b.down_w = weight_of(n, k, DOWN);
    b.qk_scale = weight_of(n, k, QK_SCALE);
    b.unit = at;
    b.mixed = b.unit + some * 3 * E;
    b.branch1 = b.mixed + some * E;
    b.middle = b.branch1 + some * E;
    b.hidden = b.middle + some * E;
    b.branch2 = b.hidden + some * 4 * E;
    b.inverse = b.branch2 + some * E;
    b.weights = b.inverse + some * 2 * n->heads;
    return b;
}
