// s_t = a_t * s_{t-1} + u_t for s, a and u [B, T, N], where s_{-1} is `start` [B, N], by default 0.
// A tile is COLUMNS numbers of all positions, which are independent of the others.

#define VECTORS 4
#define COLUMNS (VECTORS * LANES)
#define BLOCKS ((N + COLUMNS - 1) / COLUMNS)
#define EACH_VECTOR UNROLL for (int w = 0; w < VECTORS; w++)

struct args {
  float *s;
  const float *a, *u, *start;
};

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  int b = tile / BLOCKS, column = tile % BLOCKS * COLUMNS, count = MIN(COLUMNS, N - column);
  const float *start = args->start ? args->start + (long)b * N + column : 0;
  if (count == COLUMNS) {
    vec s[VECTORS];
    EACH_VECTOR s[w] = start ? load(start + w * LANES) : splat(0);
    for (int t = 0; t < T; t++) {
      long at = ((long)b * T + t) * N + column;
      EACH_VECTOR {
        s[w] = load(args->a + at + w * LANES) * s[w] + load(args->u + at + w * LANES);
        store(args->s + at + w * LANES, s[w]);
      }
    }
    return;
  }
  float s[COLUMNS];
  for (int i = 0; i < count; i++) s[i] = start ? start[i] : 0;
  for (int t = 0; t < T; t++) {
    long at = ((long)b * T + t) * N + column;
    for (int i = 0; i < count; i++) {
      s[i] = args->a[at + i] * s[i] + args->u[at + i];
      args->s[at + i] = s[i];
    }
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, B * BLOCKS);
}
