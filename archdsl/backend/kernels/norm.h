// What a row of a norm is made with: x less its mean (0 where RMS), times `by`.

struct moments {
  float mean, by;
};

INLINE struct moments moments(const float *x) {
  float mean = 0, square = 0;
  int d = 0;
  vec total = splat(0);
  if (!RMS) {
    for (; d + LANES <= D; d += LANES) total += load(x + d);
    mean = sum(total);
    for (; d < D; d++) mean += x[d];
    mean /= D;
  }
  total = splat(0);
  for (d = 0; d + LANES <= D; d += LANES) {
    vec away = load(x + d) - mean;
    total += away * away;
  }
  square = sum(total);
  for (; d < D; d++) square += (x[d] - mean) * (x[d] - mean);
  return (struct moments){mean, 1 / __builtin_sqrtf(square / D + EPS)};
}
