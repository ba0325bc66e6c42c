// y [M, D]: each row of x [M, D] with mean 0 (unless RMS) and variance 1, times gain, plus bias.

struct args {
  float *y;
  const float *x;
  const weight *gain, *bias;
};

INLINE void row(const struct args *args, float *y, const float *x) {
  struct moments of = moments(x);
  int d = 0;
  for (; d + LANES <= D; d += LANES) {
    vec v = (load(x + d) - of.mean) * of.by;
    if (GAIN) v *= weights(args->gain + d);
    if (SHIFT) v += weights(args->bias + d);
    store(y + d, v);
  }
  for (; d < D; d++) {
    y[d] = (x[d] - of.mean) * of.by;
    if (GAIN) y[d] *= one(args->gain + d);
    if (SHIFT) y[d] += one(args->bias + d);
  }
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  for (int i = tile * RUN; i < MIN((tile + 1) * RUN, M); i++)
    row(args, args->y + (long)i * D, args->x + (long)i * D);
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, (M + RUN - 1) / RUN);
}
