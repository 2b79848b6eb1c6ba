/* LayerNorm of rows, with what surrounds it in a network: the bias of the layer before it, and the ReLU or the sum behind
   it. torch makes a pass through memory for each of these, and three for the gradients of LayerNorm itself. The arrays do
   not fit the cache of a core, so the passes are the cost.

   Numbers are float32, or bfloat16 where they come from a product or go to one. All sums are float32. Rows are divided
   among the threads of OpenMP; torch sets their number. Results depend in their last places on the processor, which may
   join a product and a sum, and the sums over rows on the number of threads. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define LANES 16
#define SMALL 32768 /* numbers below which one thread is faster */

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));

#if defined(__x86_64__) && defined(__gnu_linux__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
/* Functions with vectors are inlined: how these are passed depends on the processor. */
#define INLINE static inline __attribute__((always_inline))

INLINE Lanes load(const float *from) { return *(const Lanes *)from; }
INLINE void store(float *to, Lanes value) { *(Lanes *)to = value; }

INLINE float total(Lanes value)
{
    float sums[LANES];
    store(sums, value);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++)
            sums[lane] += sums[lane + half];
    return sums[0];
}

/* Of an array of bfloat16 if `half`, else of float32. */
INLINE Lanes load_any(const void *from, int64_t at, int half)
{
    if (!half)
        return load((const float *)from + at);
    return (Lanes)(__builtin_convertvector(*(const Halves *)((const uint16_t *)from + at), Bits) << 16);
}

INLINE float load_one(const void *from, int64_t at, int half)
{
    if (!half)
        return ((const float *)from)[at];
    const uint32_t bits = (uint32_t)((const uint16_t *)from)[at] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Rounds to the nearest, halves to even; a NaN stays one. */
INLINE void store_halves(uint16_t *to, Lanes value)
{
    Bits bits = (Bits)value, is_nan = (Bits)(value != value);
    bits += 0x7fff + ((bits >> 16) & 1);
    bits = (bits & ~is_nan) | (0x7fc00000 & is_nan);
    *(Halves *)to = __builtin_convertvector(bits >> 16, Halves);
}

INLINE void store_half(uint16_t *to, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    *to = value != value ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

typedef struct {
    int64_t members, rows, width; /* networks of an ensemble, with parameters of their own; rows of each */
    const void *x;                      /* (members, rows, width) */
    const float *shift, *weight, *bias; /* (members, width); shift is the bias that is first added to x */
    const float *skip;                  /* (members, rows, width) to add to the result, or null */
    float *y;                           /* (members, rows, width), or null */
    uint16_t *rounded;                  /* the same in bfloat16, or null */
    float *mean, *scale;                /* (members, rows): of each row its mean, and 1 / sqrt(variance + epsilon) */
    float epsilon;
    int32_t relu; /* whether negative results become 0 */
    int32_t half; /* whether x is bfloat16 */
} Forward;

INLINE void forward_any(const Forward *f, int64_t member, int64_t begin, int64_t end, int half)
{
    const int64_t width = f->width, whole = width - width % LANES;
    const float *shift = f->shift + member * width, *weight = f->weight + member * width, *bias = f->bias + member * width;
    for (int64_t row = member * f->rows + begin; row < member * f->rows + end; row++) {
        const int64_t at = row * width;
        Lanes sums = {0};
        float rest = 0;
        for (int64_t i = 0; i < whole; i += LANES)
            sums += load_any(f->x, at + i, half) + load(shift + i);
        for (int64_t i = whole; i < width; i++)
            rest += load_one(f->x, at + i, half) + shift[i];
        const float mean = (total(sums) + rest) / width;
        Lanes squares = {0};
        rest = 0;
        for (int64_t i = 0; i < whole; i += LANES) {
            Lanes d = load_any(f->x, at + i, half) + load(shift + i) - mean;
            squares += d * d;
        }
        for (int64_t i = whole; i < width; i++) {
            const float d = load_one(f->x, at + i, half) + shift[i] - mean;
            rest += d * d;
        }
        const float scale = 1 / sqrtf((total(squares) + rest) / width + f->epsilon);
        for (int64_t i = 0; i < whole; i += LANES) {
            Lanes v = (load_any(f->x, at + i, half) + load(shift + i) - mean) * scale * load(weight + i) + load(bias + i);
            if (f->relu)
                v = (Lanes)((Bits)v & ~(Bits)(v < 0)); /* a NaN stays */
            if (f->skip)
                v += load(f->skip + at + i);
            if (f->y)
                store(f->y + at + i, v);
            if (f->rounded)
                store_halves(f->rounded + at + i, v);
        }
        for (int64_t i = whole; i < width; i++) {
            float v = (load_one(f->x, at + i, half) + shift[i] - mean) * scale * weight[i] + bias[i];
            v = f->relu && v < 0 ? 0 : v;
            v = f->skip ? v + f->skip[at + i] : v;
            if (f->y)
                f->y[at + i] = v;
            if (f->rounded)
                store_half(f->rounded + at + i, v);
        }
        f->mean[row] = mean;
        f->scale[row] = scale;
    }
}

FOR_EACH_PROCESSOR
static void forward_float(const Forward *f, int64_t member, int64_t begin, int64_t end)
{
    forward_any(f, member, begin, end, 0);
}

FOR_EACH_PROCESSOR
static void forward_half(const Forward *f, int64_t member, int64_t begin, int64_t end)
{
    forward_any(f, member, begin, end, 1);
}

typedef struct {
    int64_t members, rows, width;
    const void *gradient; /* (members, rows, width), of y */
    const void *y;        /* the result, if its negative numbers became 0, or null */
    const void *x;
    const float *shift, *weight, *mean, *scale;
    void *into;     /* (members, rows, width): gradient of x */
    float *sums;    /* (3, members, width): gradients of shift, weight and bias */
    float *scratch; /* (parts - 1, 3, members, width), then (members * parts, width) */
    int32_t half_gradient; /* whether the gradient is bfloat16 */
    int32_t half; /* whether x, y and into are bfloat16 */
} Backward;

INLINE void backward_any(const Backward *b, int64_t member, int64_t begin, int64_t end, int64_t part, int64_t parts,
                         int half_gradient, int half)
{
    const int64_t width = b->width, whole = width - width % LANES;
    const int64_t size = b->members * width;
    const float *shift = b->shift + member * width, *weight = b->weight + member * width;
    float *shifts = (part ? b->scratch + (part - 1) * 3 * size : b->sums) + member * width;
    float *weights = shifts + size, *biases = weights + size;
    float *scaled = b->scratch + (parts - 1) * 3 * size + (member * parts + part) * width; /* of one row */
    memset(weights, 0, width * sizeof(float));
    memset(biases, 0, width * sizeof(float));
    memset(shifts, 0, width * sizeof(float));
    for (int64_t row = member * b->rows + begin; row < member * b->rows + end; row++) {
        const int64_t at = row * width;
        const float mean = b->mean[row], scale = b->scale[row];
        Lanes plain = {0}, along = {0};
        float plain_rest = 0, along_rest = 0;
        for (int64_t i = 0; i < whole; i += LANES) {
            Lanes g = load_any(b->gradient, at + i, half_gradient);
            Lanes n = (load_any(b->x, at + i, half) + load(shift + i) - mean) * scale;
            if (b->y)
                g = (Lanes)((Bits)g & ~(Bits)(load_any(b->y, at + i, half) <= 0));
            store(weights + i, load(weights + i) + g * n);
            store(biases + i, load(biases + i) + g);
            g *= load(weight + i);
            plain += g;
            along += g * n;
            store(scaled + i, g);
        }
        for (int64_t i = whole; i < width; i++) {
            const float n = (load_one(b->x, at + i, half) + shift[i] - mean) * scale;
            float g = b->y && load_one(b->y, at + i, half) <= 0 ? 0 : load_one(b->gradient, at + i, half_gradient);
            weights[i] += g * n;
            biases[i] += g;
            g *= weight[i];
            plain_rest += g;
            along_rest += g * n;
            scaled[i] = g;
        }
        const float level = (total(plain) + plain_rest) / width, slope = (total(along) + along_rest) / width;
        for (int64_t i = 0; i < whole; i += LANES) {
            Lanes n = (load_any(b->x, at + i, half) + load(shift + i) - mean) * scale;
            Lanes d = (load(scaled + i) - level - n * slope) * scale;
            if (half)
                store_halves((uint16_t *)b->into + at + i, d);
            else
                store((float *)b->into + at + i, d);
            store(shifts + i, load(shifts + i) + d);
        }
        for (int64_t i = whole; i < width; i++) {
            const float n = (load_one(b->x, at + i, half) + shift[i] - mean) * scale;
            const float d = (scaled[i] - level - n * slope) * scale;
            if (half)
                store_half((uint16_t *)b->into + at + i, d);
            else
                ((float *)b->into)[at + i] = d;
            shifts[i] += d;
        }
    }
}

FOR_EACH_PROCESSOR
static void backward_float(const Backward *b, int64_t member, int64_t begin, int64_t end, int64_t part, int64_t parts)
{
    backward_any(b, member, begin, end, part, parts, 0, 0);
}

FOR_EACH_PROCESSOR
static void backward_mixed(const Backward *b, int64_t member, int64_t begin, int64_t end, int64_t part, int64_t parts)
{
    backward_any(b, member, begin, end, part, parts, 0, 1);
}

FOR_EACH_PROCESSOR
static void backward_half(const Backward *b, int64_t member, int64_t begin, int64_t end, int64_t part, int64_t parts)
{
    backward_any(b, member, begin, end, part, parts, 1, 1);
}

/* The number of parts into which the rows of a member are divided, by the number of threads that torch has set. */
int64_t brc_norm_parts(int64_t members, int64_t rows, int64_t width)
{
#ifdef _OPENMP
    const int64_t threads = members * rows * width < SMALL ? 1 : omp_get_max_threads();
    const int64_t parts = (threads + members - 1) / members;
    return parts < rows ? parts : 1;
#else
    return 1;
#endif
}

/* The sizes of the structures, by which the caller knows that it has the same. */
int64_t brc_norm_layout(void) { return 1000 * sizeof(Forward) + sizeof(Backward); }

void brc_norm_forward(const Forward *f)
{
    const int64_t parts = brc_norm_parts(f->members, f->rows, f->width);
#pragma omp parallel for schedule(static) if (f->members * f->rows * f->width >= SMALL)
    for (int64_t task = 0; task < f->members * parts; task++) {
        const int64_t part = task % parts, begin = f->rows * part / parts, end = f->rows * (part + 1) / parts;
        (f->half ? forward_half : forward_float)(f, task / parts, begin, end);
    }
}

/* `parts` is the result of brc_norm_parts, by which the caller has allocated the scratch. A gradient is bfloat16 only if
   x is. */
void brc_norm_backward(const Backward *b, int64_t parts)
{
#pragma omp parallel for schedule(static) if (b->members * b->rows * b->width >= SMALL)
    for (int64_t task = 0; task < b->members * parts; task++) {
        const int64_t part = task % parts, begin = b->rows * part / parts, end = b->rows * (part + 1) / parts;
        if (!b->half)
            backward_float(b, task / parts, begin, end, part, parts);
        else if (!b->half_gradient)
            backward_mixed(b, task / parts, begin, end, part, parts);
        else
            backward_half(b, task / parts, begin, end, part, parts);
    }
    const int64_t size = 3 * b->members * b->width;
    for (int64_t part = 1; part < parts; part++)
        for (int64_t i = 0; i < size; i++)
            b->sums[i] += b->scratch[(part - 1) * size + i];
}
