// y [N] = FUNCTION(x): an activation; or the gradient of one, its slope at x times dy.

struct args {
  float *y;
  const float *x, *dy;
};

// The slope of x s(u), where s is the sigmoid and u's own slope is `steep`.
INLINE vec gated_slope(vec x, vec u, vec steep) {
  vec s = sigmoid(u);
  return s + x * s * (1 - s) * steep;
}

INLINE vec relu_slope(vec x) { return where(x > 0, splat(1), splat(0)); }
INLINE vec silu_slope(vec x) { return gated_slope(x, x, splat(1)); }
INLINE vec quick_gelu_slope(vec x) { return gated_slope(x, 1.702f * x, splat(1.702f)); }
INLINE vec gelu_slope(vec x) {
  vec e = exponential(-0.5f * x * x), rest = rest_of_error(absolute(x) * 0.70710678f, e);
  return 0.5f * where(x < 0, rest, 2 - rest) + x * 0.39894228f * e;
}
INLINE vec gelu_tanh_slope(vec x) {
  vec u = 1.59576912f * (x + 0.044715f * x * x * x);
  return gated_slope(x, u, 1.59576912f * (1 + 0.134145f * x * x));
}
INLINE vec tanh_slope(vec x) { return 1 - tanh(x) * tanh(x); }
INLINE vec sigmoid_slope(vec x) { return sigmoid(x) * (1 - sigmoid(x)); }

ALONE static void part(const void *given, int chunk) {
  const struct args *with = given;
  long i = (long)chunk * RUN, end = LEAST(i + RUN, (long)N);
  for (; i + LANES <= end; i += LANES) {
    vec y = FUNCTION(load(with->x + i));
    store(with->y + i, with->dy ? y * load(with->dy + i) : y);
  }
  for (; i < end; i++) {
    float y = FUNCTION(splat(with->x[i]))[0];
    with->y[i] = with->dy ? y * with->dy[i] : y;
  }
}

void KERNEL(PARAMETERS, struct team *team) {
  struct args with = {ARGUMENTS};
  team_run(team, part, &with, (N + RUN - 1) / RUN);
}
