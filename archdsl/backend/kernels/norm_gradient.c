// The gradients of a norm: dx [M, D], and the parts [CHUNKS, D] that sum up to those of gain and
// bias, of dy [M, D]. A chunk is RUN rows, which add up to one row of the parts.
//
// Of a row's y = z gain + bias, z has the gradient g = dy gain, and x has by (g - mean(g) -
// z mean(g z)), without mean(g) where RMS.

struct args {
  float *dx, *dgain, *dbias;
  const float *x, *dy;
  const weight *gain;
};

INLINE void back(const struct args *args, int i, float *dgain, float *dbias) {
  const float *x = args->x + (long)i * D, *dy = args->dy + (long)i * D;
  float *dx = args->dx + (long)i * D;
  struct moments of = moments(x);
  vec all = splat(0), along = splat(0);
  int d = 0;
  for (; d + LANES <= D; d += LANES) {
    vec z = (load(x + d) - of.mean) * of.by, g = load(dy + d);
    if (SHIFT) store(dbias + d, load(dbias + d) + g);
    if (GAIN) {
      store(dgain + d, load(dgain + d) + g * z);
      g *= weights(args->gain + d);
    }
    all += g, along += g * z;
  }
  float mean = sum(all), slope = sum(along);
  for (; d < D; d++) {
    float z = (x[d] - of.mean) * of.by, g = dy[d];
    if (SHIFT) dbias[d] += g;
    if (GAIN) {
      dgain[d] += g * z;
      g *= one(args->gain + d);
    }
    mean += g, slope += g * z;
  }
  mean = RMS ? 0 : mean / D, slope /= D;
  for (d = 0; d + LANES <= D; d += LANES) {
    vec z = (load(x + d) - of.mean) * of.by, g = load(dy + d);
    if (GAIN) g *= weights(args->gain + d);
    store(dx + d, of.by * (g - mean - z * slope));
  }
  for (; d < D; d++) {
    float z = (x[d] - of.mean) * of.by, g = dy[d];
    if (GAIN) g *= one(args->gain + d);
    dx[d] = of.by * (g - mean - z * slope);
  }
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  float *dgain = args->dgain + (long)tile * D, *dbias = args->dbias + (long)tile * D;
  for (int d = 0; d < D; d++) {
    if (GAIN) dgain[d] = 0;
    if (SHIFT) dbias[d] = 0;
  }
  for (int i = tile * RUN; i < MIN((tile + 1) * RUN, M); i++) back(args, i, dgain, dbias);
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, (M + RUN - 1) / RUN);
}
