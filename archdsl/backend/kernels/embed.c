// y [M, D]: of a table [ROWS, D] the row that each of the tokens [M] names, 0 where it has none.

struct args {
  float *y;
  const int *tokens;
  const number *table;
  const float *scales, *offsets;
};

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  for (int i = tile * RUN; i < MIN((tile + 1) * RUN, M); i++) {
    long row = args->tokens[i];
    float *y = args->y + (long)i * D;
    int d = 0, there = row >= 0 && row < ROWS;
    for (; !there && d < D; d++) y[d] = 0;
    for (; d + LANES <= D; d += LANES)
      store(y + d, FULL(numbers(args->table, row * D + d), args, row * D + d));
#ifndef WHOLE  // which are whole groups
    for (; d < D; d++) y[d] = one(args->table + row * D + d);
#endif
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, (M + RUN - 1) / RUN);
}
