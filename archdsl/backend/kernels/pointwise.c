// y [N] = FUNCTION(x): an activation, or with dy its gradient: the derivative at x, times dy. A
// tile is TILE_SIZE numbers.

struct args {
  float *y;
  const float *x, *dy;
};

// The derivative of x * sigmoid(u), where `derivative` is that of u.
INLINE vec gated_slope(vec x, vec u, vec derivative) {
  vec s = sigmoid(u);
  return s + x * s * (1 - s) * derivative;
}

INLINE vec relu_slope(vec x) { return where(x > 0, splat(1), splat(0)); }
INLINE vec silu_slope(vec x) { return gated_slope(x, x, splat(1)); }
INLINE vec quick_gelu_slope(vec x) { return gated_slope(x, 1.702f * x, splat(1.702f)); }
INLINE vec gelu_slope(vec x) {
  vec e = exponential(-0.5f * x * x), erfc = erfc_positive(absolute(x) * 0.70710678f, e);
  return 0.5f * where(x < 0, erfc, 2 - erfc) + x * 0.39894228f * e;
}
INLINE vec gelu_tanh_slope(vec x) {
  vec u = 1.59576912f * (x + 0.044715f * x * x * x);
  return gated_slope(x, u, 1.59576912f * (1 + 0.134145f * x * x));
}
INLINE vec tanh_slope(vec x) { return 1 - tanh(x) * tanh(x); }
INLINE vec sigmoid_slope(vec x) { return sigmoid(x) * (1 - sigmoid(x)); }

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  long i = (long)tile * TILE_SIZE, end = MIN(i + TILE_SIZE, (long)N);
  for (; i + LANES <= end; i += LANES) {
    vec y = FUNCTION(load(args->x + i));
    store(args->y + i, args->dy ? y * load(args->dy + i) : y);
  }
  for (; i < end; i++) {
    float y = FUNCTION(splat(args->x[i]))[0];
    args->y[i] = args->dy ? y * args->dy[i] : y;
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, (N + TILE_SIZE - 1) / TILE_SIZE);
}
