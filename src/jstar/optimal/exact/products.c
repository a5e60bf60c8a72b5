/* a b^T of int8 matrices, exact in int32, where a processor has AVX2 and no 8-bit dot products.
 *
 * wide: both of 8 bits, widened to 16; a multiply-add takes pairs. narrow: |a| <= 32, so that four
 * products with b + 128, 0 to 255, fit into 16 bits. Blocked for the caches as Goto & van de Geijn
 * (2008): a panel of b stays in the first level while a block of a, in the second, passes over it.
 */
#ifndef __AVX2__
#error "for AVX2"
#endif
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define ROWS 4     /* of a at a time: their sums stay in registers */
#define COLUMNS 16 /* of b */
#define DEPTH 1024 /* values of a row summed before the sums go to memory; a multiple of 8 */
#define BLOCK 48   /* rows of a that stay in the second level; a multiple of ROWS */

static int64_t up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

/* Rows at .. at + width of int8 [count, dim], values from .. from + depth, as pairs of int16:
 * [depth / 2][width][2], zeros beyond the ends up to a depth of a multiple of 8. */
static void pairs(const int8_t *x, int64_t count, int64_t dim, int64_t at, int64_t from, int depth,
                  int width, int16_t *out) {
    memset(out, 0, sizeof(int16_t) * (size_t)(up(depth, 8) * width));
    for (int w = 0; w < width && at + w < count; w++) {
        const int8_t *row = x + (at + w) * dim + from;
        for (int d = 0; d < depth; d++) out[(d / 2 * width + w) * 2 + d % 2] = row[d];
    }
}

/* The same as fours of bytes, [depth / 4][width][4], with `offset` added. */
static void fours(const int8_t *x, int64_t count, int64_t dim, int64_t at, int64_t from, int depth,
                  int width, int offset, uint8_t *out) {
    memset(out, 0, (size_t)(up(depth, 8) * width));
    for (int w = 0; w < width && at + w < count; w++) {
        const int8_t *row = x + (at + w) * dim + from;
        for (int d = 0; d < depth; d++)
            out[(d / 4 * width + w) * 4 + d % 4] = (uint8_t)(row[d] + offset);
    }
}

typedef struct {
    __m256i of[ROWS][2];
} sums;

static inline void wide_sums(int depth, const int16_t *restrict a, const int16_t *restrict b,
                             sums *out) {
    __m256i sum[ROWS][2];
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int p = 0; p < depth / 2; p++) {
        const __m256i *at = (const __m256i *)(b + 2 * COLUMNS * p);
        __m256i left = _mm256_loadu_si256(at), right = _mm256_loadu_si256(at + 1);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            int32_t two;
            memcpy(&two, a + 2 * (ROWS * p + r), 4);
            __m256i both = _mm256_set1_epi32(two);
            sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(both, left));
            sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(both, right));
        }
    }
    memcpy(out, sum, sizeof(sum));
}

static inline void narrow_sums(int depth, const int8_t *restrict a, const uint8_t *restrict b,
                               sums *out) {
    __m256i sum[ROWS][2], one = _mm256_set1_epi16(1);
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (int p = 0; p < depth / 4; p += 2) {
        const __m256i *at = (const __m256i *)(b + 4 * COLUMNS * p);
        __m256i left[2] = {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 2)};
        __m256i right[2] = {_mm256_loadu_si256(at + 1), _mm256_loadu_si256(at + 3)};
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            int32_t four[2];
            memcpy(four, a + 4 * (ROWS * p + r), 4);
            memcpy(four + 1, a + 4 * (ROWS * (p + 1) + r), 4);
            __m256i first = _mm256_set1_epi32(four[0]), second = _mm256_set1_epi32(four[1]);
            __m256i l = _mm256_add_epi16(_mm256_maddubs_epi16(left[0], first),
                                         _mm256_maddubs_epi16(left[1], second));
            __m256i k = _mm256_add_epi16(_mm256_maddubs_epi16(right[0], first),
                                         _mm256_maddubs_epi16(right[1], second));
            sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(l, one));
            sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(k, one));
        }
    }
    memcpy(out, sum, sizeof(sum));
}

/* Write or add the sums, less `less` of each row. */
static inline void store(const sums *found, const int32_t *less, int add, int rows, int columns,
                         int32_t *out, int64_t stride) {
    for (int r = 0; r < rows; r++) {
        int32_t part[COLUMNS], *to = out + r * stride;
        memcpy(part, found->of[r], sizeof(part));
        for (int c = 0; c < columns; c++) to[c] = (add ? to[c] : 0) + part[c] - less[r];
    }
}

/* Rows first .. stop of b int8 [count, dim] for `jstar_product`, wide and (unless NULL) narrow, each of
 * up(count, 16) * up(dim, 8) values. first is a multiple of 16. */
void jstar_pack(const int8_t *b, int64_t first, int64_t stop, int64_t count, int64_t dim,
                int16_t *wide, uint8_t *narrow) {
    for (int64_t from = 0; from < dim; from += DEPTH) {
        int depth = (int)(dim - from < DEPTH ? dim - from : DEPTH);
        for (int64_t j = first; j < stop; j += COLUMNS) {
            int64_t at = from * up(count, COLUMNS) + j * up(depth, 8);
            pairs(b, count, dim, j, from, depth, COLUMNS, wide + at);
            if (narrow) fours(b, count, dim, j, from, depth, COLUMNS, 128, narrow + at);
        }
    }
}

/* A block of a, packed, times all of b: depth values of `some` rows. */
static void block_product(const int16_t *block, const int32_t *less, int64_t some, const int16_t *wide,
                          const uint8_t *narrow, int64_t count, int depth, int add, int32_t *out) {
    for (int64_t j = 0; j < count; j += COLUMNS) {
        int columns = (int)(count - j < COLUMNS ? count - j : COLUMNS);
        for (int64_t r = 0; r < some; r += ROWS) {
            int rows = (int)(some - r < ROWS ? some - r : ROWS);
            int32_t *to = out + r * count + j;
            for (int k = 0; k < rows; k++) { /* comes from far off while the sums are made */
                __builtin_prefetch(to + k * count, 1);
                __builtin_prefetch(to + k * count + columns - 1, 1);
            }
            sums found;
            if (narrow)
                narrow_sums(depth, (const int8_t *)block + r * depth, narrow + j * depth, &found);
            else
                wide_sums(depth, block + r * depth, wide + j * depth, &found);
            store(&found, less + r, add, rows, columns, to, count);
        }
    }
}

/* out int32 [rows, count] = a [rows, dim] b^T of a packed b. narrow: NULL, or |a| <= 32. */
void jstar_product(const int8_t *a, int64_t rows, const int16_t *wide, const uint8_t *narrow,
                   int64_t count, int64_t dim, int32_t *out) {
    _Alignas(64) int16_t block[BLOCK * DEPTH];
    for (int64_t from = 0; from < dim; from += DEPTH) {
        int depth = (int)(dim - from < DEPTH ? dim - from : DEPTH), even = (int)up(depth, 8);
        int64_t at = from * up(count, COLUMNS);
        for (int64_t i = 0; i < rows; i += BLOCK) {
            int64_t some = rows - i < BLOCK ? rows - i : BLOCK;
            int32_t less[BLOCK] = {0}; /* what b + 128 is too much */
            for (int64_t r = 0; r < some; r += ROWS)
                if (narrow)
                    fours(a, rows, dim, i + r, from, depth, ROWS, 0, (uint8_t *)block + r * even);
                else
                    pairs(a, rows, dim, i + r, from, depth, ROWS, block + r * even);
            for (int64_t r = 0; narrow && r < some; r++)
                for (int d = 0; d < depth; d++) less[r] += 128 * a[(i + r) * dim + from + d];
            block_product(block, less, some, wide + at, narrow ? narrow + at : 0, count, even, from > 0,
                          out + i * count);
        }
    }
}
