/* Votes and routing by agreement on a CPU, forward and back, with no vote in memory; capsnet/agreement_native.py calls it.

   The arithmetic is that of capsnet/agreement_triton.py, whose docstring has the equations: the logits of a pass are the scalar
   products of its votes with V, the sum of the capsules of the passes before it, so that a pass needs V alone. It makes the
   votes of an input anew, for LANES images at once, and sums them up while they are in the innermost cache.

   A vector ("lanes") holds one number of LANES images, a block of the batch. So whatever is done for one image is done for
   each, without a sum across a vector, whatever the sizes of capsules; only the gradient of the weights sums over images. Lanes
   beyond the batch have inputs and gradients of 0, and are not written out.

   Inputs are cut into chunks, a thread takes some pairs of a chunk and a block, and the sums of the chunks are added up in
   their order. How many chunks there are depends on sizes alone: the result has the same bits with any number of threads. */

#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t integers __attribute__((vector_size(4 * LANES)));

#define ALWAYS static inline __attribute__((always_inline))

/* Loops over the vectors of a group are written out, so that these are registers. */
#define UNROLL _Pragma("GCC unroll 8")

const int64_t lane_count = LANES;

/* PyTorch's own threads do the work: it has loaded a library of OpenMP, and all of them export these. */
extern void GOMP_parallel(void (*work)(void *), void *data, unsigned threads, unsigned flags);
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);

/* What a routing reads and writes. Sizes of arrays are in lanes, but those of float, which lie as in PyTorch. */
typedef struct {
    int64_t batch, count, input_dim, classes, dim, iterations, blocks, chunks, threads;
    const float *inputs;      /* u [batch, count, input_dim] */
    const float *weight;      /* W [count, input_dim, classes, dim] */
    const float *bias;        /* [classes, dim], or NULL */
    float *capsules;          /* out [batch, classes, dim] */
    lanes *arranged;          /* u again [count, blocks, input_dim] */
    lanes *partials;          /* [chunks, blocks, classes, dim] */
    lanes *sums;              /* s of each pass [iterations, blocks, classes, dim] */
    lanes *totals;            /* V of each pass [iterations, blocks, classes, dim]: the capsules so far, added up */
    lanes *couplings;         /* c of each pass but the first [iterations - 1, count, classes, blocks], or NULL */
    lanes *scratch;           /* of each thread, as much as scratch_size says */
    const float *gradient;    /* of the capsules; what follows is of the way back alone */
    float *inputs_gradient;
    float *weight_gradient;
    lanes *sums_gradients;    /* ds, like sums */
    lanes *logits_gradients;  /* db, like couplings */
    lanes *carried;           /* the gradient of V [blocks, classes, dim] */
} routing;

/* Inputs that are worked on before the next block: their weights stay in the second cache meanwhile. */
enum { TILE = 16 };

/* Vectors that are made at once, in registers. */
enum { GROUP = 8 };

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

int64_t scratch_size(const routing *r) {
    int64_t forward = r->classes * (r->dim + 1), back = r->blocks * (r->dim + TILE * r->input_dim);
    return most(forward, back);
}

static inline lanes choose(integers condition, lanes yes, lanes no) {
    return (lanes)((condition & (integers)yes) | (~condition & (integers)no));
}

/* e^x for x <= 0: 2^n times a polynomial (Cephes' expf), to 2 units in the last place; below -87 it is 0. What is not a number
   stays so. */
static inline lanes exponential(lanes x) {
    const lanes zero = {0};
    integers tiny = x < -87.0f;
    x = choose(tiny, zero, x);
    lanes n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* rounded: 1.5 * 2^23 leaves no place for a fraction */
    lanes rest = x - n * 0.693359375f + n * 2.12194440e-4f;
    lanes p = zero + 1.9875691500e-4f;
    p = p * rest + 1.3981999507e-3f;
    p = p * rest + 8.3334519073e-3f;
    p = p * rest + 4.1665795894e-2f;
    p = p * rest + 1.6666665459e-1f;
    p = p * rest + 5.0000001201e-1f;
    p = p * rest * rest + rest + 1.0f;
    integers power = (__builtin_convertvector(n, integers) + 127) << 23;
    return choose(tiny, zero, p * (lanes)power);
}

static inline lanes root(lanes x) {
    for (int l = 0; l < LANES; l++) x[l] = __builtin_sqrtf(x[l]);
    return x;
}

/* Sums across vectors: those of GROUP vectors at once, pair by pair. */
#ifdef __clang__
#define MIXED(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define MIXED(x, y, ...) __builtin_shuffle(x, y, (integers){__VA_ARGS__})
#endif
#if LANES == 16
#define BY_ONE(x, y) \
    (MIXED(x, y, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) + \
     MIXED(x, y, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#define BY_TWO(x, y) \
    (MIXED(x, y, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) + \
     MIXED(x, y, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
#define BY_FOUR(x, y) \
    (MIXED(x, y, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) + \
     MIXED(x, y, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
#else
#define BY_ONE(x, y) (MIXED(x, y, 0, 8, 2, 10, 4, 12, 6, 14) + MIXED(x, y, 1, 9, 3, 11, 5, 13, 7, 15))
#define BY_TWO(x, y) (MIXED(x, y, 0, 1, 8, 9, 4, 5, 12, 13) + MIXED(x, y, 2, 3, 10, 11, 6, 7, 14, 15))
#define BY_FOUR(x, y) (MIXED(x, y, 0, 1, 2, 3, 8, 9, 10, 11) + MIXED(x, y, 4, 5, 6, 7, 12, 13, 14, 15))
#endif

ALWAYS void sums_over_lanes(float *to, const lanes *a) {
    lanes low = BY_TWO(BY_ONE(a[0], a[1]), BY_ONE(a[2], a[3]));
    lanes high = BY_TWO(BY_ONE(a[4], a[5]), BY_ONE(a[6], a[7]));
    lanes all = BY_FOUR(low, high);
    for (int n = 0; n < GROUP; n++) to[n] = LANES == GROUP ? all[n] : all[n] + all[n + LANES - GROUP];
}

static inline float sum_over_lanes(lanes a) {
    float total = 0;
    for (int l = 0; l < LANES; l++) total += a[l];
    return total;
}

/* For n of them: to[n] = (what is there, if add) + the sum over m of x[m] * w[n * over_n + m * over_m]. */
ALWAYS void multiply_some(const int some, lanes *to, const lanes *x, int64_t terms, const float *w, int64_t over_n,
                          int64_t over_m, const int add) {
    lanes a[GROUP];
    UNROLL for (int n = 0; n < some; n++) a[n] = add ? to[n] : (lanes){0};
    for (int64_t m = 0; m < terms; m++)
        UNROLL for (int n = 0; n < some; n++) a[n] += x[m] * w[n * over_n + m * over_m];
    UNROLL for (int n = 0; n < some; n++) to[n] = a[n];
}

ALWAYS void multiply(lanes *to, int64_t count, const lanes *x, int64_t terms, const float *w, int64_t over_n, int64_t over_m,
                     const int add) {
    int64_t n = 0;
    for (; n + GROUP <= count; n += GROUP) multiply_some(GROUP, to + n, x, terms, w + n * over_n, over_n, over_m, add);
    for (; n + 4 <= count; n += 4) multiply_some(4, to + n, x, terms, w + n * over_n, over_n, over_m, add);
    for (; n < count; n++) multiply_some(1, to + n, x, terms, w + n * over_n, over_n, over_m, add);
}

/* A thread, and of how many. */
typedef struct { int64_t number, of; } worker;

typedef struct { int64_t from, to; } range;
static inline range part(int64_t total, worker me) {
    return (range){total * me.number / me.of, total * (me.number + 1) / me.of};
}

typedef void (*stage)(const routing *, int64_t pass, worker me);
typedef struct { stage does; const routing *r; int64_t pass; } task;
static void take_part(void *data) {
    const task *t = data;
    t->does(t->r, t->pass, (worker){omp_get_thread_num(), omp_get_num_threads()}); /* which may be fewer than were asked for */
}
static void by_all_threads(stage does, const routing *r, int64_t pass) {
    task t = {does, r, pass};
    if (r->threads > 1) GOMP_parallel(take_part, &t, r->threads, 0);
    else does(r, pass, (worker){0, 1});
}

/* The inputs of LANES images side by side. */
static void arrange(const routing *r, int64_t pass, worker me) {
    (void)pass;
    range mine = part(r->count, me);
    for (int64_t i = mine.from; i < mine.to; i++)
        for (int64_t b = 0; b < r->blocks; b++) {
            float *to = (float *)(r->arranged + (i * r->blocks + b) * r->input_dim);
            for (int64_t l = 0; l < LANES; l++) {
                int64_t image = b * LANES + l;
                const float *from = r->inputs + (image * r->count + i) * r->input_dim;
                for (int64_t e = 0; e < r->input_dim; e++) to[e * LANES + l] = image < r->batch ? from[e] : 0;
            }
        }
}

/* The softmax over the classes, in place. */
static inline void softmax(lanes *logits, int64_t classes) {
    lanes top = logits[0], total = {0};
    for (int64_t j = 1; j < classes; j++) top = choose(logits[j] > top, logits[j], top);
    for (int64_t j = 0; j < classes; j++) total += logits[j] = exponential(logits[j] - top);
    total = 1.0f / total;
    for (int64_t j = 0; j < classes; j++) logits[j] *= total;
}

/* Its gradient: what comes are agreements of votes with ds, what goes are gradients of logits. */
static inline void softmax_gradient(lanes *gradient, const lanes *couplings, int64_t classes, int64_t step) {
    lanes mean = {0};
    for (int64_t j = 0; j < classes; j++) mean += couplings[j * step] * gradient[j];
    for (int64_t j = 0; j < classes; j++) gradient[j] = couplings[j * step] * (gradient[j] - mean);
}

/* Sums over an input's votes, for one block: those of the first pass leave the factor 1 / classes to squash. */
typedef enum { FIRST, FORWARD, BACK } kind;
ALWAYS void add_input(const kind what, const routing *r, int64_t pass, int64_t i, int64_t b, lanes *total, lanes *scratch) {
    int64_t outputs = r->classes * r->dim, one = i * r->blocks + b;
    const lanes *u = r->arranged + one * r->input_dim;
    const float *w = r->weight + i * r->input_dim * outputs;
    if (what == FIRST) {
        multiply(total, outputs, u, r->input_dim, w, 1, outputs, 1);
        return;
    }
    int64_t pair = ((pass - 1) * r->count + i) * r->classes * r->blocks + b; /* of class 0 */
    const lanes *with = what == BACK ? r->sums_gradients + (pass * r->blocks + b) * outputs
                                     : r->totals + ((pass - 1) * r->blocks + b) * outputs;
    lanes *votes = scratch, *shares = scratch + outputs;
    for (int64_t j = 0; j < r->classes; j++) {
        lanes *vote = votes + j * r->dim, agreement = {0};
        multiply(vote, r->dim, u, r->input_dim, w + j * r->dim, 1, outputs, 0);
        for (int64_t d = 0; d < r->dim; d++) agreement += vote[d] * with[j * r->dim + d];
        shares[j] = agreement;
    }
    if (what == BACK) softmax_gradient(shares, r->couplings + pair, r->classes, r->blocks);
    else softmax(shares, r->classes);
    lanes *kept = what == BACK ? r->logits_gradients : r->couplings;
    if (kept)
        for (int64_t j = 0; j < r->classes; j++) kept[pair + j * r->blocks] = shares[j];
    for (int64_t j = 0; j < r->classes; j++) {
        lanes share = shares[j];
        for (int64_t d = 0; d < r->dim; d++) total[j * r->dim + d] += share * votes[j * r->dim + d];
    }
}

ALWAYS void add_up(const kind what, const routing *r, int64_t pass, worker me) {
    int64_t outputs = r->classes * r->dim, length = (r->count + r->chunks - 1) / r->chunks;
    lanes *scratch = r->scratch + me.number * scratch_size(r);
    range mine = part(r->blocks * r->chunks, me);
    while (mine.from < mine.to) { /* chunk after chunk, of each the blocks that are this thread's */
        int64_t chunk = mine.from / r->blocks, begin = mine.from % r->blocks;
        int64_t end = least(r->blocks, begin + mine.to - mine.from), last = least(r->count, (chunk + 1) * length);
        lanes *totals = r->partials + chunk * r->blocks * outputs;
        memset(totals + begin * outputs, 0, (end - begin) * outputs * sizeof(lanes));
        for (int64_t tile = chunk * length; tile < last; tile += TILE)
            for (int64_t b = begin; b < end; b++)
                for (int64_t i = tile; i < least(tile + TILE, last); i++)
                    add_input(what, r, pass, i, b, totals + b * outputs, scratch);
        mine.from += end - begin;
    }
}

static void add_first(const routing *r, int64_t pass, worker me) { add_up(FIRST, r, pass, me); }
static void add_forward(const routing *r, int64_t pass, worker me) { add_up(FORWARD, r, pass, me); }
static void add_back(const routing *r, int64_t pass, worker me) { add_up(BACK, r, pass, me); }

static inline lanes chunks_sum(const routing *r, int64_t number) {
    lanes total = {0};
    for (int64_t chunk = 0; chunk < r->chunks; chunk++)
        total += r->partials[chunk * r->blocks * r->classes * r->dim + number];
    return total;
}

/* Of a pass s and V, which after the last pass is the capsules alone. */
static void squash(const routing *r, int64_t pass) {
    int64_t outputs = r->classes * r->dim, size = r->blocks * outputs, last = r->iterations - 1;
    lanes *sums = r->sums + pass * size, *totals = r->totals + pass * size;
    for (int64_t capsule = 0; capsule < size; capsule += r->dim) {
        lanes squared = {0};
        for (int64_t d = 0; d < r->dim; d++) {
            lanes s = chunks_sum(r, capsule + d) * (pass ? 1.0f : 1.0f / r->classes);
            if (r->bias) s += r->bias[(capsule + d) % outputs];
            sums[capsule + d] = s;
            squared += s * s;
        }
        lanes factor = root(squared) / (1.0f + squared);
        for (int64_t d = 0; d < r->dim; d++) {
            lanes v = sums[capsule + d] * factor;
            totals[capsule + d] = pass && pass < last ? v + totals[capsule + d - size] : v;
        }
    }
}

/* ds of a pass: the gradient of f(n) s, where n = |s| and f(n) = n / (1 + n^2); at 0 it is 0. */
static void unsquash(const routing *r, int64_t pass) {
    const lanes zero = {0};
    int64_t outputs = r->classes * r->dim, size = r->blocks * outputs, last = r->iterations - 1;
    const lanes *sums = r->sums + pass * size;
    lanes *to = r->sums_gradients + pass * size;
    for (int64_t capsule = 0; capsule < size; capsule += r->dim) {
        lanes squared = zero, along = zero;
        for (int64_t d = 0; d < r->dim; d++) {
            int64_t number = capsule + d;
            lanes gradient = zero;
            if (pass == last) {
                for (int64_t l = 0; l < LANES; l++) {
                    int64_t image = number / outputs * LANES + l;
                    if (image < r->batch) gradient[l] = r->gradient[image * outputs + number % outputs];
                }
                r->carried[number] = zero;
            } else {
                gradient = r->carried[number] += chunks_sum(r, number);
            }
            to[number] = gradient;
            squared += sums[number] * sums[number];
            along += gradient * sums[number];
        }
        lanes length = root(squared), one_more = 1.0f + squared, factor = length / one_more;
        lanes slope = (1.0f - squared) / one_more / (one_more * length) * along; /* f'(n) / n */
        slope = choose(length == 0.0f, zero, slope);
        for (int64_t d = 0; d < r->dim; d++) to[capsule + d] = to[capsule + d] * factor + sums[capsule + d] * slope;
    }
}

/* The gradient of an input's votes for class j: ds / classes of the first pass, and c ds + db V of each other one. */
ALWAYS void some_vote_gradients(const int some, const routing *r, int64_t i, int64_t b, int64_t j, int64_t d, lanes *to) {
    int64_t size = r->blocks * r->classes * r->dim, at = (b * r->classes + j) * r->dim + d;
    const lanes *ds = r->sums_gradients + at, *totals = r->totals + at;
    lanes a[GROUP];
    UNROLL for (int n = 0; n < some; n++) a[n] = ds[n] * (1.0f / r->classes);
    for (int64_t k = 0; k < r->iterations - 1; k++) {
        int64_t pair = ((k * r->count + i) * r->classes + j) * r->blocks + b;
        lanes c = r->couplings[pair], db = r->logits_gradients[pair];
        UNROLL for (int n = 0; n < some; n++) a[n] = a[n] + c * ds[(k + 1) * size + n] + db * totals[k * size + n];
    }
    UNROLL for (int n = 0; n < some; n++) to[d + n] = a[n];
}

/* Have what it needs of couplings brought near, which no processor would guess. */
static inline void fetch(const routing *r, int64_t i, int64_t b, int64_t j) {
    for (int64_t k = 0; k < r->iterations - 1; k++) {
        int64_t pair = ((k * r->count + i) * r->classes + j) * r->blocks + b;
        __builtin_prefetch(r->couplings + pair);
        __builtin_prefetch(r->logits_gradients + pair);
    }
}

ALWAYS void vote_gradients(const routing *r, int64_t i, int64_t b, int64_t j, lanes *to) {
    int64_t d = 0;
    for (; d + GROUP <= r->dim; d += GROUP) some_vote_gradients(GROUP, r, i, b, j, d, to);
    for (; d < r->dim; d++) some_vote_gradients(1, r, i, b, j, d, to);
}

/* The gradient of W_ij: the sum over images of u times that of the votes, [blocks, dim]. */
ALWAYS void matrix_gradient(const routing *r, int64_t i, int64_t j, const lanes *of_votes) {
    const lanes *inputs = r->arranged + i * r->blocks * r->input_dim;
    for (int64_t e = 0; e < r->input_dim; e++) {
        float *to = r->weight_gradient + ((i * r->input_dim + e) * r->classes + j) * r->dim;
        int64_t d = 0;
        for (; d + GROUP <= r->dim; d += GROUP) {
            lanes a[GROUP] = {{0}};
            for (int64_t b = 0; b < r->blocks; b++)
                UNROLL for (int n = 0; n < GROUP; n++) a[n] += inputs[b * r->input_dim + e] * of_votes[b * r->dim + d + n];
            sums_over_lanes(to + d, a);
        }
        for (; d < r->dim; d++) {
            lanes a = {0};
            for (int64_t b = 0; b < r->blocks; b++) a += inputs[b * r->input_dim + e] * of_votes[b * r->dim + d];
            to[d] = sum_over_lanes(a);
        }
    }
}

/* Gradients of u and W, each input's by one thread. */
static void gradients(const routing *r, int64_t pass, worker me) {
    (void)pass;
    int64_t outputs = r->classes * r->dim, width = r->blocks * r->input_dim;
    lanes *of_votes = r->scratch + me.number * scratch_size(r), *of_inputs = of_votes + r->blocks * r->dim;
    range mine = part(r->count, me);
    for (int64_t tile = mine.from; tile < mine.to; tile += TILE) {
        int64_t end = least(tile + TILE, mine.to);
        memset(of_inputs, 0, (end - tile) * width * sizeof(lanes));
        for (int64_t j = 0; j < r->classes; j++) /* what is read of a class stays in the cache for the tile */
            for (int64_t i = tile; i < end; i++) {
                const float *w = r->weight + i * r->input_dim * outputs + j * r->dim;
                for (int64_t b = 0; b < r->blocks; b++) {
                    if (i + 1 < end) fetch(r, i + 1, b, j);
                    vote_gradients(r, i, b, j, of_votes + b * r->dim);
                    lanes *to = of_inputs + (i - tile) * width + b * r->input_dim;
                    multiply(to, r->input_dim, of_votes + b * r->dim, r->dim, w, outputs, 1, 1);
                }
                matrix_gradient(r, i, j, of_votes);
            }
        for (int64_t image = 0; image < r->batch; image++) {
            const float *from = (const float *)(of_inputs + image / LANES * r->input_dim) + image % LANES;
            float *to = r->inputs_gradient + (image * r->count + tile) * r->input_dim;
            for (int64_t i = 0; i < end - tile; i++)
                for (int64_t e = 0; e < r->input_dim; e++) to[i * r->input_dim + e] = from[(i * width + e) * LANES];
        }
    }
}

void route(const routing *r) {
    int64_t outputs = r->classes * r->dim;
    by_all_threads(arrange, r, 0);
    for (int64_t pass = 0; pass < r->iterations; pass++) {
        by_all_threads(pass ? add_forward : add_first, r, pass);
        squash(r, pass);
    }
    const float *last = (const float *)(r->totals + (r->iterations - 1) * r->blocks * outputs);
    for (int64_t image = 0; image < r->batch; image++)
        for (int64_t k = 0; k < outputs; k++)
            r->capsules[image * outputs + k] = last[(image / LANES * outputs + k) * LANES + image % LANES];
}

void route_back(const routing *r) {
    for (int64_t pass = r->iterations - 1; pass > 0; pass--) {
        unsquash(r, pass);
        by_all_threads(add_back, r, pass);
    }
    unsquash(r, 0);
    by_all_threads(gradients, r, 0);
}
