// y [M, D]: each row of x [M, D] with mean 0 (unless RMS) and variance 1, times gain, plus bias.

struct args {
  float *y;
  const float *x;
  const weight *gain, *bias;
};

INLINE void row(const struct args *with, float *y, const float *x) {
  struct moments of = moments(x);
  int d = 0;
  for (; d + LANES <= D; d += LANES) {
    vec v = (load(x + d) - of.mean) * of.by;
    if (GAIN) v *= weights(with->gain + d);
    if (SHIFT) v += weights(with->bias + d);
    store(y + d, v);
  }
  for (; d < D; d++) {
    y[d] = (x[d] - of.mean) * of.by;
    if (GAIN) y[d] *= one(with->gain + d);
    if (SHIFT) y[d] += one(with->bias + d);
  }
}

ALONE static void part(const void *given, int chunk) {
  const struct args *with = given;
  for (int i = chunk * RUN; i < LEAST((chunk + 1) * RUN, M); i++)
    row(with, with->y + (long)i * D, with->x + (long)i * D);
}

void KERNEL(PARAMETERS, struct team *team) {
  struct args with = {ARGUMENTS};
  team_run(team, part, &with, (M + RUN - 1) / RUN);
}
