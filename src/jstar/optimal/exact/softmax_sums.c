/* Fused softmax sums: one pass over the squared distances for all noise scales.
 *
 * Compiled on first use by fast_sums.py; where there is no compiler softmax_sums.py does the same in torch.
 * For each row i (a noisy draw) and each noise scale, with beta = 1 / sigma,
 *     out[s] += sum_n w {1, q, e, h},   w = exp(beta * (+-e - beta * q)).
 * A block of columns is kept in the first-level cache while all noise scales pass over its parts, and
 * of a part only the noise scales at which not all weights underflow.
 */
#include "exp2.h"

#define BLOCK 512
#define PART 64 /* columns whose nearest decides */

/* Largest beta at which not all of a part's weights underflow: of b widest - b^2 nearest = underflow. */
static float largest_beta(const float *q, const float *e, int n, float underflow) {
    float nearest = q[0], widest = 0.0f;
    for (int j = 0; j < n; j++) {
        float a = fabsf(e[j]);
        nearest = q[j] < nearest ? q[j] : nearest;
        widest = a > widest ? a : widest;
    }
    if (!(nearest > 0.0f)) return 3.0e38f; /* -ffast-math knows no infinity */
    return (widest + sqrtf(widest * widest - 4 * underflow * nearest)) / (2 * nearest);
}

static void part_sums(const float *restrict q, const float *restrict e, const float *restrict h,
                      int n, const double *beta, int scales, int signs, float largest, double *out,
                      int64_t sign_stride) {
    for (int s = scales - 1; s >= 0 && beta[s] <= largest; s--) {
        float b = (float)beta[s], linear = b * LOG2E, square = -b * b * LOG2E;
        for (int g = 0; g < signs; g++) {
            float slope = g ? -linear : linear;
            float sum_w = 0, sum_q = 0, sum_e = 0, sum_h = 0;
            for (int j = 0; j < n; j++) {
                float w = exp2_fast(square * q[j] + slope * e[j]);
                sum_w += w;
                sum_q += w * q[j];
                sum_e += w * e[j];
                sum_h += w * h[j];
            }
            double *o = out + g * sign_stride + 4 * s;
            o[0] += sum_w, o[1] += sum_q, o[2] += sum_e, o[3] += sum_h;
        }
    }
}

/* beta falls: noise scales grow. */
static void block_sums(const float *restrict q, const float *restrict e, const float *restrict h,
                       int n, const double *beta, int scales, int signs, float underflow,
                       double *out, int64_t sign_stride) {
    for (int j = 0; j < n; j += PART) {
        int size = n - j < PART ? n - j : PART;
        float largest = largest_beta(q + j, e + j, size, underflow);
        part_sums(q + j, e + j, h + j, size, beta, scales, signs, largest, out, sign_stride);
    }
}

/* Rows of q and e as they are: float [rows, n]. */
void jstar_sums_float(const float *q, const float *e, const float *h, int64_t rows, int64_t n,
                      const double *beta, int scales, int signs, float underflow, double *out,
                      int64_t sign_stride) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n; j += BLOCK) {
            int size = (int)(n - j < BLOCK ? n - j : BLOCK);
            block_sums(q + i * n + j, e + i * n + j, h + j, size, beta, scales, signs, underflow,
                       out + i * scales * 4, sign_stride);
        }
}

/* q and e from exact integer products: <z_i, z_n>, and raw_stride further on <term_i, z_n>. */
void jstar_sums_int(const int32_t *raw, int64_t raw_stride, const int32_t *norm_row,
                    const int32_t *norm_column, const int32_t *own, const float *step,
                    const float *h, int64_t rows, int64_t n, const double *beta, int scales,
                    int signs, float underflow, double *out, int64_t sign_stride) {
    float q[BLOCK], e[BLOCK];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n; j += BLOCK) {
            int size = (int)(n - j < BLOCK ? n - j : BLOCK);
            const int32_t *inner = raw + i * n + j, *term = inner + raw_stride;
            for (int c = 0; c < size; c++) {
                q[c] = 0.5f * (float)(norm_row[i] + norm_column[j + c] - 2 * inner[c]);
                e[c] = step[i] * (float)(term[c] - own[i]);
            }
            block_sums(q, e, h + j, size, beta, scales, signs, underflow, out + i * scales * 4,
                       sign_stride);
        }
}

/* Exact squared norms of int8 rows, and the sum of each column added to `column`. */
void jstar_moments_int8(const int8_t *z, int64_t rows, int64_t dim, int32_t *norm,
                        int32_t *column) {
    for (int64_t i = 0; i < rows; i++) {
        int32_t sum = 0;
        for (int64_t d = 0; d < dim; d++) {
            int32_t v = z[i * dim + d];
            sum += v * v;
            column[d] += v;
        }
        norm[i] = sum;
    }
}
