// The gradient of a table [ROWS, D]: each row is the sum of those of dy [M, D] whose tokens [M]
// name it. A chunk is a run of the table's rows, which nobody else writes.

struct args {
  float *table;
  const int *tokens;
  const float *dy;
};

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  int first = tile * RUN, end = MIN(first + RUN, ROWS);
  for (long i = (long)first * D; i < (long)end * D; i++) args->table[i] = 0;
  for (int i = 0; i < M; i++) {
    int row = args->tokens[i];
    if (row < first || row >= end) continue;
    float *to = args->table + (long)row * D;
    const float *dy = args->dy + (long)i * D;
    int d = 0;
    for (; d + LANES <= D; d += LANES) store(to + d, load(to + d) + load(dy + d));
    for (; d < D; d++) to[d] += dy[d];
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, (ROWS + RUN - 1) / RUN);
}
