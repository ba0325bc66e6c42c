// Vectors of LANES float32, as many as the processor takes at once, and what is computed of them.

#if defined(__AVX512F__)
#define LANES 16
#define WIDE 4  // vectors beside one another in a register tile, at most 6 rows of them
#elif defined(__AVX__)
#define LANES 8
#define WIDE 2
#else  // NEON, and what else has vectors of 16 bytes
#define LANES 4
#define WIDE 4
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float loose __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(LANES * 4)));
typedef short svec __attribute__((vector_size(LANES * 4)));
typedef short sloose __attribute__((vector_size(LANES * 4), aligned(2), may_alias));
typedef short shalf __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

#define INLINE static inline __attribute__((always_inline))
// Kernels stand alone: loops stay loops, and become no calls of a C library.
#define NOINLINE __attribute__((noinline, no_builtin))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define UNROLL _Pragma("clang loop unroll(full)")

INLINE vec load(const float *p) { return *(const loose *)p; }
INLINE void store(float *p, vec v) { *(loose *)p = v; }
INLINE vec splat(float x) { return x - (vec){}; }
INLINE vec same(const float *p) { return splat(*p); }
INLINE vec where(ivec yes, vec a, vec b) { return (vec)((yes & (ivec)a) | (~yes & (ivec)b)); }
INLINE vec larger(vec a, vec b) { return where(a > b, a, b); }
INLINE vec absolute(vec v) { return (vec)((ivec)v & 0x7fffffff); }
INLINE vec smaller(vec a, vec b) { return where(a < b, a, b); }

// The nearest whole numbers, of at most 2^22, as such.
INLINE ivec nearest(vec v) { return (ivec)(v + 12582912.0f) - 0x4b400000; }

// Products of neighbours, summed in pairs.
INLINE ivec pairs(svec a, svec b) {
#if defined(__AVX512BW__)
  return (ivec)__builtin_ia32_pmaddwd512(a, b);
#elif LANES == 8 && defined(__AVX2__)
  return (ivec)__builtin_ia32_pmaddwd256(a, b);
#else
  // A number of 32 bits holds two of 16, the first of them below.
  ivec x = (ivec)a, y = (ivec)b;
  return (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
#endif
}

typedef float four __attribute__((vector_size(16)));
typedef float four_loose __attribute__((vector_size(16), aligned(4), may_alias));
#define SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

// Four sums, of every fourth lane.
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

// The sum of each of four vectors.
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

INLINE float largest(vec v) {
  float parts[LANES], found;
  store(parts, v);
  found = parts[0];
  UNROLL for (int i = 1; i < LANES; i++) found = parts[i] > found ? parts[i] : found;
  return found;
}

// Turns a square of LANES by LANES over: its quarters, then theirs.
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
INLINE void turn(vec rows[LANES]) {
#if LANES == 16
  EXCHANGE(8)
#endif
#if LANES >= 8
  EXCHANGE(4)
#endif
  EXCHANGE(2)
  EXCHANGE(1)
}

// LANES numbers of each of LANES rows, so far `apart`, turned over. Halves of two rows are put
// beside one another as they are read, which is quicker than to exchange them.
INLINE void load_turned(vec rows[LANES], const float *from, long apart) {
#if LANES == 8
  UNROLL for (int i = 0; i < 8; i++) {
    const float *p = from + i % 4 * apart + i / 4 * 4;
    four low = *(const four_loose *)p, high = *(const four_loose *)(p + 4 * apart);
    rows[i] = SHUFFLED(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
  }
  EXCHANGE(2)
  EXCHANGE(1)
#else
  UNROLL for (int i = 0; i < LANES; i++) rows[i] = load(from + i * apart);
  turn(rows);
#endif
}

// e^x to 2 units in the last place, for x from -87.3 to 88.3: 2^n by the exponent's bits, the rest
// by Taylor's series within half a ln 2 of zero. Of what is no number it is none.
INLINE vec exponential_inside(vec inside) {
  vec n = inside * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to a whole number
  ivec whole = (ivec)n << 23;
  n -= 12582912.0f;
  vec r = inside - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  vec p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1;
  return p * (vec)(whole + (127 << 23));
}

// The same of x up to 88.3; below -87.3 it is 0.
INLINE vec exponential_below(vec x) {
  return where(x < -87.3f, splat(0), exponential_inside(larger(splat(-87.3f), x)));
}

// The same of any x; above 88.3 it goes no further.
INLINE vec exponential(vec x) { return exponential_below(smaller(splat(88.3f), x)); }

INLINE vec sigmoid(vec x) { return 1 / (1 + exponential(-x)); }

// 1 less the error function of x, at least 0, of which `e` is e^(-x^2). Abramowitz and Stegun
// 1964, 7.1.26: within 1.5e-7.
INLINE vec rest_of_error(vec x, vec e) {
  vec t = 1 / (1 + 0.3275911f * x);
  vec p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  return p * t * e;
}

INLINE vec identity(vec x) { return x; }
INLINE vec relu(vec x) { return larger(splat(0), x); }
INLINE vec silu(vec x) { return x * sigmoid(x); }
INLINE vec quick_gelu(vec x) { return x * sigmoid(1.702f * x); }
// x where it is above 0, less what the normal distribution has beyond it of |x|.
INLINE vec gelu(vec x) {
  vec size = absolute(x), e = exponential_inside(larger(splat(-87.3f), -0.5f * x * x));
  return larger(x, splat(0)) - 0.5f * size * rest_of_error(size * 0.70710678f, e);
}
INLINE vec gelu_tanh(vec x) {
  return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
}
INLINE vec tanh(vec x) { return 2 * sigmoid(2 * x) - 1; }
