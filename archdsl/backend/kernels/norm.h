// The statistics of a row: it is normalized as (x - mean) * inverse_std. With RMS the mean is 0.

struct moments {
  float mean, inverse_std;
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
    vec centered = load(x + d) - mean;
    total += centered * centered;
  }
  square = sum(total);
  for (; d < D; d++) square += (x[d] - mean) * (x[d] - mean);
  return (struct moments){mean, 1 / __builtin_sqrtf(square / D + EPS)};
}
