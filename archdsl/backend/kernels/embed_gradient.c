// The gradient of a table [ROWS, D]: each row is the sum of the rows of dy [M, D] with its token
// [M]. A tile is TILE_SIZE rows of the table, so no two tiles write to the same row.

struct args {
  float *table;
  const int *tokens;
  const float *dy;
};

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  int first = tile * TILE_SIZE, end = MIN(first + TILE_SIZE, ROWS);
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
  parallel_for(pool, run_tile, &args, (ROWS + TILE_SIZE - 1) / TILE_SIZE);
}
