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

#define INLINE static inline __attribute__((always_inline))
// Kernels stand alone: loops stay loops, and become no calls of a C library.
#define ALONE __attribute__((noinline, no_builtin))
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define MOST(a, b) ((a) > (b) ? (a) : (b))
#define UNROLL _Pragma("clang loop unroll(full)")

INLINE vec load(const float *p) { return *(const loose *)p; }
INLINE void store(float *p, vec v) { *(loose *)p = v; }
INLINE vec splat(float x) { return x - (vec){}; }
INLINE vec where(ivec yes, vec a, vec b) { return (vec)((yes & (ivec)a) | (~yes & (ivec)b)); }
INLINE vec larger(vec a, vec b) { return where(a > b, a, b); }
INLINE vec smaller(vec a, vec b) { return where(a < b, a, b); }

INLINE float sum(vec v) {
  float total = 0;
  float parts[LANES];
  store(parts, v);
  for (int n = LANES / 2; n; n /= 2)
    UNROLL for (int i = 0; i < n; i++) parts[i] += parts[i + n];
  return total + parts[0];
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

// e^x to 2 units in the last place: 2^n by the exponent's bits, the rest by Taylor's series
// within half a ln 2 of zero. Below -87.3 it is 0; of what is no number it is none.
INLINE vec exponential(vec x) {
  vec inside = smaller(larger(x, splat(-87.3f)), splat(88.7f));
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
  vec y = (vec)((ivec)p + whole);
  y = where(x < -87.3f, splat(0), y);
  return where(x == x, y, x);
}

INLINE vec sigmoid(vec x) { return 1 / (1 + exponential(-x)); }

// The error function of x, of which `e` is e^(-x^2). Abramowitz and Stegun 1964, 7.1.26: within
// 1.5e-7.
INLINE vec error(vec x, vec e) {
  vec size = where(x < 0, -x, x);
  vec t = 1 / (1 + 0.3275911f * size);
  vec p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  vec y = 1 - p * t * e;
  return where(x < 0, -y, y);
}

INLINE vec identity(vec x) { return x; }
INLINE vec relu(vec x) { return larger(x, splat(0)); }
INLINE vec silu(vec x) { return x * sigmoid(x); }
INLINE vec quick_gelu(vec x) { return x * sigmoid(1.702f * x); }
INLINE vec gelu(vec x) {
  return 0.5f * x * (1 + error(x * 0.70710678f, exponential(-0.5f * x * x)));
}
INLINE vec gelu_tanh(vec x) {
  return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
}
INLINE vec tanh(vec x) { return 2 * sigmoid(2 * x) - 1; }
