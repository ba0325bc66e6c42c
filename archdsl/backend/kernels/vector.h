// SIMD vectors of LANES float32, as wide as the processor supports, and functions of them.

#if defined(__AVX512F__)
#define LANES 16
#define NR_VECTORS 4  // vectors per row of a register tile, which has at most 6 rows
#elif defined(__AVX__)
#define LANES 8
#define NR_VECTORS 2
#else  // NEON, and other processors with vectors of 16 bytes
#define LANES 4
#define NR_VECTORS 4
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float loose __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(LANES * 4)));
typedef short svec __attribute__((vector_size(LANES * 4)));
typedef short sloose __attribute__((vector_size(LANES * 4), aligned(2), may_alias));
typedef short shalf __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

#define INLINE static inline __attribute__((always_inline))
// Kernels are compiled without a C library, so loops must not become calls to memcpy or memset.
#define NOINLINE __attribute__((noinline, no_builtin))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define UNROLL _Pragma("clang loop unroll(full)")

INLINE vec load(const float *p) { return *(const loose *)p; }
INLINE void store(float *p, vec v) { *(loose *)p = v; }
INLINE vec splat(float x) { return x - (vec){}; }
INLINE vec broadcast(const float *p) { return splat(*p); }
INLINE vec where(ivec yes, vec a, vec b) { return (vec)((yes & (ivec)a) | (~yes & (ivec)b)); }
INLINE vec maximum(vec a, vec b) { return where(a > b, a, b); }
INLINE vec absolute(vec v) { return (vec)((ivec)v & 0x7fffffff); }
INLINE vec minimum(vec a, vec b) { return where(a < b, a, b); }

// Rounds to the nearest integers; the absolute values must be at most 2^22.
INLINE ivec round_to_int(vec v) { return (ivec)(v + 12582912.0f) - 0x4b400000; }

// Multiplies 16-bit lanes and adds each pair of products.
INLINE ivec multiply_add_pairs(svec a, svec b) {
#if defined(__AVX512BW__)
  return (ivec)__builtin_ia32_pmaddwd512(a, b);
#elif LANES == 8 && defined(__AVX2__)
  return (ivec)__builtin_ia32_pmaddwd256(a, b);
#else
  // Each 32-bit lane holds two 16-bit numbers, the first in the lower half.
  ivec x = (ivec)a, y = (ivec)b;
  return (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
#endif
}

typedef float four __attribute__((vector_size(16)));
typedef float four_loose __attribute__((vector_size(16), aligned(4), may_alias));
#define SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

// Four sums: lane i of the result is the sum of the lanes i, i + 4, i + 8 and i + 12.
INLINE four quarter(vec v) {
#if LANES == 16
  return SHUFFLED(v, v, 0, 1, 2, 3) + SHUFFLED(v, v, 4, 5, 6, 7) + SHUFFLED(v, v, 8, 9, 10, 11) +
         SHUFFLED(v, v, 12, 13, 14, 15);
#elif LANES == 8
  return SHUFFLED(v, v, 0, 1, 2, 3) + SHUFFLED(v, v, 4, 5, 6, 7);
#else
  return v;
#endif
}

// The sums of four vectors.
INLINE four four_sums(vec a, vec b, vec c, vec d) {
  four p = quarter(a), q = quarter(b), r = quarter(c), s = quarter(d);
  p = SHUFFLED(p, q, 0, 4, 1, 5) + SHUFFLED(p, q, 2, 6, 3, 7);
  r = SHUFFLED(r, s, 0, 4, 1, 5) + SHUFFLED(r, s, 2, 6, 3, 7);
  return SHUFFLED(p, r, 0, 1, 4, 5) + SHUFFLED(p, r, 2, 3, 6, 7);
}

INLINE float sum(vec v) {
  four p = quarter(v);
  p += SHUFFLED(p, p, 2, 3, 0, 1);
  return p[0] + p[1];
}

INLINE float max_lane(vec v) {
  float parts[LANES], found;
  store(parts, v);
  found = parts[0];
  UNROLL for (int i = 1; i < LANES; i++) found = parts[i] > found ? parts[i] : found;
  return found;
}

// Transposes a LANES x LANES square: exchanges quarters, then quarters of each quarter.
#define LOW(l, d) ((l) & (d) ? LANES + (l) - (d) : (l))
#define HIGH(l, d) ((l) & (d) ? LANES + (l) : (l) + (d))
#define FOUR(f, l, d) f(l, d), f(l + 1, d), f(l + 2, d), f(l + 3, d)
#if LANES == 16
#define EACH(f, d) FOUR(f, 0, d), FOUR(f, 4, d), FOUR(f, 8, d), FOUR(f, 12, d)
#elif LANES == 8
#define EACH(f, d) FOUR(f, 0, d), FOUR(f, 4, d)
#else
#define EACH(f, d) FOUR(f, 0, d)
#endif
#define EXCHANGE(d)                                              \
  UNROLL for (int i = 0; i < LANES; i++) if (!(i & (d))) {       \
    vec a = rows[i], b = rows[i + (d)];                          \
    rows[i] = __builtin_shufflevector(a, b, EACH(LOW, d));       \
    rows[i + (d)] = __builtin_shufflevector(a, b, EACH(HIGH, d)); \
  }
INLINE void transpose_square(vec rows[LANES]) {
#if LANES == 16
  EXCHANGE(8)
#endif
#if LANES >= 8
  EXCHANGE(4)
#endif
  EXCHANGE(2)
  EXCHANGE(1)
}

// Loads and transposes LANES numbers of each of LANES rows, which are `stride` apart. With 8 lanes
// the first exchange happens while loading, which is faster.
INLINE void load_transposed(vec rows[LANES], const float *from, long stride) {
#if LANES == 8
  UNROLL for (int i = 0; i < 8; i++) {
    const float *p = from + i % 4 * stride + i / 4 * 4;
    four low = *(const four_loose *)p, high = *(const four_loose *)(p + 4 * stride);
    rows[i] = SHUFFLED(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
  }
  EXCHANGE(2)
  EXCHANGE(1)
#else
  UNROLL for (int i = 0; i < LANES; i++) rows[i] = load(from + i * stride);
  transpose_square(rows);
#endif
}

// exp(x) with an error of at most 2 ulp, for x from -87.3 to 88.3. exp(x) = 2^n exp(r): 2^n is set
// in the exponent bits, exp(r) is a Taylor series with |r| <= ln(2) / 2. NaN stays NaN.
INLINE vec exponential_unchecked(vec x) {
  vec n = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
  ivec power = (ivec)n << 23;
  n -= 12582912.0f;
  vec r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  vec p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1;
  return p * (vec)(power + (127 << 23));
}

// exp(x) for x <= 88.3; 0 below -87.3.
INLINE vec exponential_below(vec x) {
  return where(x < -87.3f, splat(0), exponential_unchecked(maximum(splat(-87.3f), x)));
}

// exp(x) for any x; above 88.3 it is exp(88.3).
INLINE vec exponential(vec x) { return exponential_below(minimum(splat(88.3f), x)); }

INLINE vec sigmoid(vec x) { return 1 / (1 + exponential(-x)); }

// erfc(x) for x >= 0, where `e` is exp(-x^2): Abramowitz and Stegun 1964, 7.1.26, with an error of
// at most 1.5e-7.
INLINE vec erfc_positive(vec x, vec e) {
  vec t = 1 / (1 + 0.3275911f * x);
  vec p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  return p * t * e;
}

INLINE vec identity(vec x) { return x; }
INLINE vec relu(vec x) { return maximum(splat(0), x); }
INLINE vec silu(vec x) { return x * sigmoid(x); }
INLINE vec quick_gelu(vec x) { return x * sigmoid(1.702f * x); }
// max(x, 0) - |x| Q(|x|), where Q is the tail of the normal distribution.
INLINE vec gelu(vec x) {
  vec size = absolute(x), e = exponential_unchecked(maximum(splat(-87.3f), -0.5f * x * x));
  return maximum(x, splat(0)) - 0.5f * size * erfc_positive(size * 0.70710678f, e);
}
INLINE vec gelu_tanh(vec x) {
  return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
}
INLINE vec tanh(vec x) { return 2 * sigmoid(2 * x) - 1; }
