// The gradients of a norm from dy [M, D]: dx [M, D], and partial sums [tiles, D] of dgain and
// dbias. A tile is TILE_SIZE rows and writes one row of the partial sums, so no two tiles write to
// the same memory.
//
// For a row y = z * gain + bias with z = (x - mean) / std, the gradient of z is g = dy * gain, and
// dx = (g - mean(g) - z * mean(g * z)) / std; with RMS there is no mean(g).

struct args {
  float *dx, *dgain, *dbias;
  const float *x, *dy;
  const weight *gain;
};

INLINE void backward_row(const struct args *args, int i, float *dgain, float *dbias) {
  const float *x = args->x + (long)i * D, *dy = args->dy + (long)i * D;
  float *dx = args->dx + (long)i * D;
  struct moments stats = moments(x);
  vec total = splat(0), along = splat(0);
  int d = 0;
  for (; d + LANES <= D; d += LANES) {
    vec z = (load(x + d) - stats.mean) * stats.inverse_std, g = load(dy + d);
    if (HAS_BIAS) store(dbias + d, load(dbias + d) + g);
    if (HAS_GAIN) {
      store(dgain + d, load(dgain + d) + g * z);
      g *= load_weights(args->gain + d);
    }
    total += g, along += g * z;
  }
  float mean = sum(total), slope = sum(along);
  for (; d < D; d++) {
    float z = (x[d] - stats.mean) * stats.inverse_std, g = dy[d];
    if (HAS_BIAS) dbias[d] += g;
    if (HAS_GAIN) {
      dgain[d] += g * z;
      g *= read_weight(args->gain + d);
    }
    mean += g, slope += g * z;
  }
  mean = RMS ? 0 : mean / D, slope /= D;
  for (d = 0; d + LANES <= D; d += LANES) {
    vec z = (load(x + d) - stats.mean) * stats.inverse_std, g = load(dy + d);
    if (HAS_GAIN) g *= load_weights(args->gain + d);
    store(dx + d, stats.inverse_std * (g - mean - z * slope));
  }
  for (; d < D; d++) {
    float z = (x[d] - stats.mean) * stats.inverse_std, g = dy[d];
    if (HAS_GAIN) g *= read_weight(args->gain + d);
    dx[d] = stats.inverse_std * (g - mean - z * slope);
  }
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  float *dgain = args->dgain + (long)tile * D, *dbias = args->dbias + (long)tile * D;
  for (int d = 0; d < D; d++) {
    if (HAS_GAIN) dgain[d] = 0;
    if (HAS_BIAS) dbias[d] = 0;
  }
  for (int i = tile * TILE_SIZE; i < MIN((tile + 1) * TILE_SIZE, M); i++)
    backward_row(args, i, dgain, dbias);
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, (M + TILE_SIZE - 1) / TILE_SIZE);
}
