/* Matrix products in float32 whose columns lie in panels that a few vector registers hold.
 *
 * A matrix is read as it lies, or from a copy in which panels lie one after the other: rows a power
 * of two apart share a few sets of the cache, and then every one of them is fetched again.
 * STEP: 8, or 4: columns come in multiples of it.
 */

typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));
#if STEP == 4
typedef vec4 vec;
#else
typedef vec8 vec;
#endif
#if defined(__AVX512F__)
#define ROWS 8
#define LANES 16
typedef float wide __attribute__((vector_size(64), aligned(4), may_alias));
#else
#define ROWS 6
#define LANES 8
typedef vec8 wide;
#endif

/* c[i, j] = or += sum_k a[i * ai + k * ak] b[k * ldb + j]; rows x vectors of c in registers. */
#define PRODUCT(NAME, VEC, ROWS_, VECS)                                                          \
    static inline __attribute__((always_inline)) void NAME(                                      \
        const float *a, int64_t ai, int64_t ak, const float *b, int64_t ldb, float *c,           \
        int64_t ldc, int64_t depth, int add) {                                                   \
        enum { N = sizeof(VEC) / sizeof(float) };                                                \
        VEC sum[ROWS_][VECS];                                                                    \
        for (int r = 0; r < ROWS_; r++)                                                          \
            for (int v = 0; v < VECS; v++)                                                       \
                sum[r][v] = add ? *(const VEC *)(c + r * ldc + v * N) : (VEC){0};                \
        for (int64_t k = 0; k < depth; k++) {                                                    \
            VEC column[VECS];                                                                    \
            for (int v = 0; v < VECS; v++) column[v] = *(const VEC *)(b + k * ldb + v * N);      \
            for (int r = 0; r < ROWS_; r++) {                                                    \
                float value = a[r * ai + k * ak];                                                \
                for (int v = 0; v < VECS; v++) sum[r][v] += column[v] * value;                   \
            }                                                                                    \
        }                                                                                        \
        for (int r = 0; r < ROWS_; r++)                                                          \
            for (int v = 0; v < VECS; v++) *(VEC *)(c + r * ldc + v * N) = sum[r][v];            \
    }

#define PRODUCTS(NAME, VEC, VECS)                                                                \
    PRODUCT(NAME##_rows, VEC, ROWS, VECS)                                                        \
    PRODUCT(NAME##_4, VEC, 4, VECS)                                                              \
    PRODUCT(NAME##_1, VEC, 1, VECS)
PRODUCTS(wide2, wide, 2)
PRODUCTS(wide1, wide, 1)
PRODUCTS(eight, vec8, 1)
PRODUCTS(four, vec4, 1)

/* All rows of a panel of columns. */
#define PANEL(NAME, B, LDB)                                                                      \
    do {                                                                                         \
        int64_t i = 0;                                                                           \
        for (; i + ROWS <= rows; i += ROWS)                                                      \
            NAME##_rows(a + i * ai, ai, ak, B, LDB, c + i * ldc + j, ldc, depth, add);           \
        for (; i + 4 <= rows; i += 4)                                                            \
            NAME##_4(a + i * ai, ai, ak, B, LDB, c + i * ldc + j, ldc, depth, add);              \
        for (; i < rows; i++)                                                                    \
            NAME##_1(a + i * ai, ai, ak, B, LDB, c + i * ldc + j, ldc, depth, add);              \
    } while (0)

/* The widths of the panels of columns in which a product is made, the widest first. */
static inline int64_t panel_width(int64_t left) {
    return left >= 2 * LANES ? 2 * LANES : left >= LANES ? LANES : left >= 8 ? 8 : 4;
}

/* The product of any number of rows and a multiple of STEP columns. */
static void product(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t ai,
                    int64_t ak, const float *b, int64_t ldb, float *c, int64_t ldc, int add) {
    int64_t j = 0;
    for (; j + 2 * LANES <= columns; j += 2 * LANES) PANEL(wide2, b + j, ldb);
    for (; j + LANES <= columns; j += LANES) PANEL(wide1, b + j, ldb);
    for (; j + 8 <= columns; j += 8) PANEL(eight, b + j, ldb);
    for (; j < columns; j += 4) PANEL(four, b + j, ldb);
}

/* The same with b in panels, which lie one after the other. */
static void product_packed(int64_t rows, int64_t columns, int64_t depth, const float *a,
                           int64_t ai, int64_t ak, const float *b, float *c, int64_t ldc, int add) {
    int64_t j = 0;
    for (; j + 2 * LANES <= columns; j += 2 * LANES)
        PANEL(wide2, b + j * depth, 2 * LANES);
    for (; j + LANES <= columns; j += LANES)
        PANEL(wide1, b + j * depth, LANES);
    for (; j + 8 <= columns; j += 8) PANEL(eight, b + j * depth, 8);
    for (; j < columns; j += 4) PANEL(four, b + j * depth, 4);
}

/* Rows of a whole panel, one after the other. */
static inline void copy_panel(int64_t depth, int64_t width, const float *b, int64_t ldb,
                              float *to) {
    for (int64_t k = 0; k < depth; k++, b += ldb)
        for (int64_t i = 0; i < width; i += 4, to += 4) *(vec4 *)to = *(const vec4 *)(b + i);
}

/* Columns of a whole panel from rows of its transposed matrix, 4 x 4 at a time. */
static inline void turn_panel(int64_t depth, int64_t width, const float *b, int64_t ldb,
                              float *to) {
    typedef int32_t mask __attribute__((vector_size(16)));
    const mask low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, left = {0, 1, 4, 5}, right = {2, 3, 6, 7};
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4)
        for (int64_t i = 0; i < width; i += 4) {
            const float *at = b + i * ldb + k;
            vec4 r0 = *(const vec4 *)at, r1 = *(const vec4 *)(at + ldb);
            vec4 r2 = *(const vec4 *)(at + 2 * ldb), r3 = *(const vec4 *)(at + 3 * ldb);
            vec4 a = __builtin_shuffle(r0, r1, low), c = __builtin_shuffle(r2, r3, low);
            vec4 d = __builtin_shuffle(r0, r1, high), e = __builtin_shuffle(r2, r3, high);
            float *into = to + k * width + i;
            *(vec4 *)into = __builtin_shuffle(a, c, left);
            *(vec4 *)(into + width) = __builtin_shuffle(a, c, right);
            *(vec4 *)(into + 2 * width) = __builtin_shuffle(d, e, left);
            *(vec4 *)(into + 3 * width) = __builtin_shuffle(d, e, right);
        }
    for (; k < depth; k++)
        for (int64_t i = 0; i < width; i++) to[k * width + i] = b[i * ldb + k];
}

/* From this width on rows so far apart share few sets of the cache; below, a copy costs more than it
 * saves, but where a pass turns the weights anyway. */
#define COPIED (4 * LANES)

/* As `product`, from copies of both matrices in pieces that the nearest caches hold. `room` is for
 * DEEP rows of b. */
#define DEEP 128
static void product_copied(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t ai,
                           int64_t ak, const float *b, int64_t ldb, float *c, int64_t ldc, int add,
                           float *room) {
    float few[DEEP * ROWS];
    for (int64_t k = 0; k < depth; k += DEEP, a += DEEP * ak, b += DEEP * ldb) {
        int64_t deep = depth - k < DEEP ? depth - k : DEEP;
        for (int64_t j = 0, width; j < columns; j += width) {
            width = panel_width(columns - j);
            copy_panel(deep, width, b + j, ldb, room + j * deep);
        }
        for (int64_t i = 0; i < rows; i += ROWS) {
            int64_t some = rows - i < ROWS ? rows - i : ROWS;
            if (some == ROWS && ai == 1) /* nearly always, and then vectors are copied */
                for (int64_t l = 0; l < deep; l++)
                    for (int64_t q = 0; q < ROWS; q++) few[l * ROWS + q] = a[i + q + l * ak];
            else
                for (int64_t l = 0; l < deep; l++)
                    for (int64_t q = 0; q < some; q++) few[l * some + q] = a[(i + q) * ai + l * ak];
            product_packed(some, columns, deep, few, 1, some, room, c + i * ldc, ldc, add || k > 0);
        }
    }
}

/* The same, copied where that pays. */
static void product_wide(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t ai,
                         int64_t ak, const float *b, int64_t ldb, float *c, int64_t ldc, int add,
                         float *room) {
    if (columns < COPIED)
        product(rows, columns, depth, a, ai, ak, b, ldb, c, ldc, add);
    else
        product_copied(rows, columns, depth, a, ai, ak, b, ldb, c, ldc, add, room);
}

/* y = x w, w [in, out], in panels if packed. */
static void linear(int64_t rows, int64_t in, int64_t out, const float *x, const float *w, float *y,
                   int packed) {
    if (packed)
        product_packed(rows, out, in, x, in, 1, w, y, out, 0);
    else
        product(rows, out, in, x, in, 1, w, out, y, out, 0);
}
