// y [M, D] = (x - mean) / std * gain + bias for each row of x [M, D]; with RMS the mean is not
// subtracted. A tile is TILE_SIZE rows.

struct args {
  float *y;
  const float *x;
  const weight *gain, *bias;
};

INLINE void row(const struct args *args, float *y, const float *x) {
  struct moments stats = moments(x);
  int d = 0;
  for (; d + LANES <= D; d += LANES) {
    vec v = (load(x + d) - stats.mean) * stats.inverse_std;
    if (HAS_GAIN) v *= load_weights(args->gain + d);
    if (HAS_BIAS) v += load_weights(args->bias + d);
    store(y + d, v);
  }
  for (; d < D; d++) {
    y[d] = (x[d] - stats.mean) * stats.inverse_std;
    if (HAS_GAIN) y[d] *= read_weight(args->gain + d);
    if (HAS_BIAS) y[d] += read_weight(args->bias + d);
  }
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  for (int i = tile * TILE_SIZE; i < MIN((tile + 1) * TILE_SIZE, M); i++)
    row(args, args->y + (long)i * D, args->x + (long)i * D);
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, (M + TILE_SIZE - 1) / TILE_SIZE);
}
