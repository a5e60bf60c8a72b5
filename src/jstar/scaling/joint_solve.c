/* Least squares of joint laws, a study at a time: what joint_solve.py does for all at once.
 *
 * J = E + A (N/N0)^-a + B (D/D0)^-b by variable projection (Golub & Pereyra 1973). Names and steps
 * are those of joint_solve.py.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { U, BY_A, V, BY_B, ONE, LOSS, COLUMNS }; /* u, -u ln N, v, -v ln D, 1, loss */
enum { LN_A, SMALL, LN_B, SHORT, FLOOR, PARAMETERS };

static const int TERM[3] = {U, V, ONE}, SHAPE[2] = {BY_A, BY_B};

/* P points in R clusters of one design. start_R [R + 1]: first point of each cluster, and P. */
typedef struct {
    int64_t points, clusters;
    const int64_t *start_R;
    const double *ln_n_R, *ln_d_P;
} design;

/* low, high: bounds of theta. */
typedef struct {
    const double *low, *high;
    double tolerance, rounding, largest_step;
    int64_t steps, free;
} search;

/* One study, whitened: `Whitening` and `_Problem`. */
typedef struct {
    const double *own_P, *before_P, *shape_P, *share_R;
    double level, square;
    double *loss_P, *unit_P, *unit_R, *loss_R, *shift_R, *v_P;
} problem;

/* `_Place`. */
typedef struct {
    double theta[PARAMETERS], rss, slope[2], normal[2][2], rounding;
} place;

static inline double bounded(double x, double low, double high) {
    return x < low ? low : x > high ? high : x;
}

/* Point p of x freed of what the snapshot before tells; before_P is 0 where a run begins. */
static inline double white(const problem *at, const double *x_P, int64_t p) {
    return x_P[p] * at->own_P[p] - (p ? x_P[p - 1] * at->before_P[p] : 0.0);
}

static void prepare(const design *d, problem *at, const double *loss_P) {
    for (int64_t p = 0; p < d->points; p++) at->v_P[p] = loss_P[p] - at->level;
    at->square = 0.0;
    for (int64_t r = 0; r < d->clusters; r++) {
        double along = 0.0, shift = 0.0, unit = 0.0, loss = 0.0;
        for (int64_t p = d->start_R[r]; p < d->start_R[r + 1]; p++) {
            double y = white(at, at->v_P, p), one = at->own_P[p] - at->before_P[p];
            at->loss_P[p] = y;
            along += one * at->shape_P[p];
            shift += y * at->shape_P[p];
            at->square += y * y;
        }
        at->square -= at->share_R[r] * shift * shift;
        for (int64_t p = d->start_R[r]; p < d->start_R[r + 1]; p++) {
            double one = at->own_P[p] - at->before_P[p];
            at->unit_P[p] = one - at->share_R[r] * along * at->shape_P[p];
            unit += at->unit_P[p] * one;
            loss += at->unit_P[p] * at->loss_P[p];
        }
        at->unit_R[r] = unit;
        at->loss_R[r] = loss;
        at->shift_R[r] = shift;
    }
}

/* Inner products of the columns for exponents a and b. */
static void gram_of(const design *d, const problem *at, double a, double b,
                    double gram[COLUMNS][COLUMNS]) {
    memset(gram, 0, sizeof(double[COLUMNS][COLUMNS]));
    for (int64_t p = 0; p < d->points; p++) at->v_P[p] = exp(-b * d->ln_d_P[p]);
    for (int64_t r = 0; r < d->clusters; r++) {
        double unit[2] = {0}, shift[2] = {0}, vv = 0, vw = 0, ww = 0, vy = 0, wy = 0;
        for (int64_t p = d->start_R[r]; p < d->start_R[r + 1]; p++) {
            double before = p ? at->v_P[p - 1] * at->before_P[p] : 0.0;
            double here = at->v_P[p] * at->own_P[p], y = at->loss_P[p];
            double v = here - before;
            double w = -here * d->ln_d_P[p] + (p ? before * d->ln_d_P[p - 1] : 0.0);
            unit[0] += at->unit_P[p] * v;
            unit[1] += at->unit_P[p] * w;
            shift[0] += at->shape_P[p] * v;
            shift[1] += at->shape_P[p] * w;
            vv += v * v;
            vw += v * w;
            ww += w * w;
            vy += v * y;
            wy += w * y;
        }
        double share = at->share_R[r], u = exp(-a * d->ln_n_R[r]);
        double flat[3] = {u, -u * d->ln_n_R[r], 1.0};
        static const int FLAT[3] = {U, BY_A, ONE};
        for (int i = 0; i < 3; i++) {
            for (int k = i; k < 3; k++) gram[FLAT[i]][FLAT[k]] += flat[i] * flat[k] * at->unit_R[r];
            gram[FLAT[i]][V] += flat[i] * unit[0];
            gram[FLAT[i]][BY_B] += flat[i] * unit[1];
            gram[FLAT[i]][LOSS] += flat[i] * at->loss_R[r];
        }
        gram[V][V] += vv - share * shift[0] * shift[0];
        gram[V][BY_B] += vw - share * shift[0] * shift[1];
        gram[BY_B][BY_B] += ww - share * shift[1] * shift[1];
        gram[V][LOSS] += vy - share * shift[0] * at->shift_R[r];
        gram[BY_B][LOSS] += wy - share * shift[1] * at->shift_R[r];
    }
    gram[V][ONE] = gram[ONE][V];
    gram[BY_B][ONE] = gram[ONE][BY_B];
    gram[LOSS][LOSS] = at->square;
    for (int i = 0; i < COLUMNS; i++)
        for (int k = 0; k < i; k++) gram[i][k] = gram[k][i];
}

/* x of a x = right, for three unknowns and `sides` right hands; a and right are used up. */
static void solve3(double a[3][3], double right[][3], int sides) {
    for (int i = 0; i < 3; i++) {
        int pivot = i;
        for (int k = i + 1; k < 3; k++)
            if (fabs(a[k][i]) > fabs(a[pivot][i])) pivot = k;
        for (int k = 0; k < 3; k++) {
            double kept = a[i][k];
            a[i][k] = a[pivot][k];
            a[pivot][k] = kept;
        }
        for (int s = 0; s < sides; s++) {
            double kept = right[s][i];
            right[s][i] = right[s][pivot];
            right[s][pivot] = kept;
        }
        for (int k = i + 1; k < 3; k++) {
            double times = a[k][i] / a[i][i];
            for (int l = i; l < 3; l++) a[k][l] -= times * a[i][l];
            for (int s = 0; s < sides; s++) right[s][k] -= times * right[s][i];
        }
    }
    for (int s = 0; s < sides; s++)
        for (int i = 2; i >= 0; i--) {
            for (int k = i + 1; k < 3; k++) right[s][i] -= a[i][k] * right[s][k];
            right[s][i] /= a[i][i];
        }
}

/* `_inner`. */
static void inner_of(double gram[COLUMNS][COLUMNS], const int *held, double out[3][3]) {
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++) out[i][k] = held[i] || held[k] ? 0.0 : gram[TERM[i]][TERM[k]];
    for (int i = 0; i < 3; i++) out[i][i] = held[i] ? 1.0 : out[i][i] * (1 + 1e-13) + 1e-300;
}

/* `_linear`: the terms that are not held; returns the rss. */
static double linear(double gram[COLUMNS][COLUMNS], const double *fixed, const int *held,
                     double *terms) {
    double inner[3][3], right[1][3], explained = 0.0;
    inner_of(gram, held, inner);
    for (int i = 0; i < 3; i++) {
        right[0][i] = held[i] ? 0.0 : gram[TERM[i]][LOSS];
        for (int k = 0; k < 3; k++)
            if (!held[i] && held[k]) right[0][i] -= gram[TERM[i]][TERM[k]] * fixed[k];
    }
    solve3(inner, right, 1);
    for (int i = 0; i < 3; i++) terms[i] = held[i] ? fixed[i] : right[0][i];
    for (int i = 0; i < 3; i++) {
        explained += 2 * terms[i] * gram[TERM[i]][LOSS];
        for (int k = 0; k < 3; k++) explained -= terms[i] * gram[TERM[i]][TERM[k]] * terms[k];
    }
    return gram[LOSS][LOSS] - explained;
}

/* `_terms`: best A, B and E above the level inside their bounds, and which of them are held. */
static double terms_of(const search *how, double level, double gram[COLUMNS][COLUMNS],
                       double *terms, int *held) {
    double fixed[3] = {exp(how->low[LN_A]), exp(how->low[LN_B]),
                       how->free ? how->low[FLOOR] - level : 0.0};
    double high[2] = {exp(how->high[LN_A]), exp(how->high[LN_B])}, rss, least = INFINITY;
    held[0] = held[1] = 0;
    held[2] = !how->free;
    rss = linear(gram, fixed, held, terms);
    if (terms[0] < fixed[0] || terms[1] < fixed[1] || (how->free && terms[2] < fixed[2])) {
        for (int which = 1; which < 8; which++) { /* bits, from the highest: A, B, E */
            int mask[3] = {which >> 2 & 1, which >> 1 & 1, which & 1}, inside = 1;
            double found[3], at;
            if (!how->free && (!mask[2] || which == 1)) continue; /* solved above */
            at = linear(gram, fixed, mask, found);
            for (int i = 0; i < 3; i++) inside &= found[i] >= fixed[i] - 1e-12 * fabs(fixed[i]);
            if (inside && at < least) {
                least = at;
                memcpy(terms, found, sizeof(found));
                memcpy(held, mask, sizeof(mask));
            }
        }
        rss = least;
    }
    if (terms[0] > high[0] || terms[1] > high[1]) {
        double top[3] = {fmin(terms[0], high[0]), fmin(terms[1], high[1]), terms[2]};
        for (int i = 0; i < 2; i++) held[i] |= terms[i] > high[i];
        rss = linear(gram, top, held, terms);
    }
    return rss;
}

/* `_Problem.at`. */
static place at_exponents(const design *d, const search *how, const problem *at, double a,
                          double b) {
    double gram[COLUMNS][COLUMNS], terms[3], inner[3][3], side[2][3], solved[2][3];
    int held[3];
    place here;
    gram_of(d, at, a, b, gram);
    here.rss = terms_of(how, at->level, gram, terms, held);
    double theta[PARAMETERS] = {log(terms[0]), a, log(terms[1]), b, at->level + terms[2]};
    memcpy(here.theta, theta, sizeof(theta));
    here.rounding = how->rounding * gram[LOSS][LOSS];
    inner_of(gram, held, inner);
    for (int i = 0; i < 2; i++) {
        here.slope[i] = gram[SHAPE[i]][LOSS];
        for (int k = 0; k < 3; k++) {
            here.slope[i] -= gram[SHAPE[i]][TERM[k]] * terms[k];
            side[i][k] = solved[i][k] = held[k] ? 0.0 : gram[SHAPE[i]][TERM[k]];
        }
        here.slope[i] *= terms[i];
    }
    solve3(inner, solved, 2);
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) {
            double kept = 0.0;
            for (int l = 0; l < 3; l++) kept += side[i][l] * solved[k][l];
            here.normal[i][k] = (gram[SHAPE[i]][SHAPE[k]] - kept) * terms[i] * terms[k];
        }
    return here;
}

/* `_Place.step`, and the exponents that it leads to. */
static void trial_of(const search *how, const place *here, double damping, double *trial) {
    double slope[2], diagonal[2], both = here->normal[0][1], change[2];
    for (int i = 0; i < 2; i++) {
        double at = here->theta[2 * i + 1];
        int out = (at <= how->low[2 * i + 1] && here->slope[i] < 0) ||
                  (at >= how->high[2 * i + 1] && here->slope[i] > 0);
        slope[i] = out ? 0.0 : here->slope[i];
        if (out) both = 0.0;
        diagonal[i] = here->normal[i][i] * (1 + damping) + 1e-300;
    }
    double product = diagonal[0] * diagonal[1];
    double determinant = fmax(product - both * both, 1e-12 * product);
    change[0] = (diagonal[1] * slope[0] - both * slope[1]) / determinant;
    change[1] = (diagonal[0] * slope[1] - both * slope[0]) / determinant;
    for (int i = 0; i < 2; i++)
        trial[i] = bounded(
            here->theta[2 * i + 1] + bounded(change[i], -how->largest_step, how->largest_step),
            how->low[2 * i + 1], how->high[2 * i + 1]);
}

/* `solve` of Q studies from I starts each: theta [I, Q, 5] and rss [I, Q]. white: own, before and
 * shape, each [Q, P], one behind the other; room: 3 P + 3 R values to work in. */
void jstar_joint_solve(const design *d, const search *how, int64_t studies, int64_t starts,
                       const double *loss_QP, const double *start_IQK, const double *white_3QP,
                       const double *share_QR, double *room, double *theta_IQK, double *rss_IQ) {
    int64_t P = d->points, R = d->clusters;
    double *rows = room + 3 * P;
    for (int64_t row = 0; row < starts * studies; row++) {
        int64_t q = row % studies;
        const double *start = start_IQK + row * PARAMETERS, *own_P = white_3QP + q * P;
        problem at = {own_P, own_P + studies * P, own_P + 2 * studies * P, share_QR + q * R,
                      start[FLOOR], 0.0, room, room + P, rows, rows + R, rows + 2 * R,
                      room + 2 * P};
        double trial[2], damping = 1e-3;
        prepare(d, &at, loss_QP + q * P);
        for (int i = 0; i < 2; i++)
            trial[i] = bounded(start[2 * i + 1], how->low[2 * i + 1], how->high[2 * i + 1]);
        place here = at_exponents(d, how, &at, trial[0], trial[1]);
        for (int64_t turn = 0; turn <= how->steps; turn++) {
            trial_of(how, &here, damping, trial);
            place there = at_exponents(d, how, &at, trial[0], trial[1]);
            int better = there.rss <= here.rss;
            int settled = fabs(here.rss - there.rss) <= how->tolerance * here.rss + there.rounding;
            if (better) here = there;
            damping = bounded(better ? damping * 0.1 : damping * 8, 1e-12, 1e9);
            if (settled || damping >= 1e9) break;
        }
        memcpy(theta_IQK + row * PARAMETERS, here.theta, sizeof(here.theta));
        rss_IQ[row] = fmax(here.rss, 0.0);
    }
}
