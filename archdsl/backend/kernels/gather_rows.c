// The rows of x [M, D] that chose expert `which`, one after the other, in y [M, D]. rows [1 + M] is
// their number, and then their indices. A row chose an expert if its gate, in gates [M, E], is not 0.

struct args {
  float *y;
  int *rows;
  const float *x, *gates;
  const int *which;
};

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  for (int i = tile * TILE_SIZE; i < MIN((tile + 1) * TILE_SIZE, args->rows[0]); i++)
    for (int d = 0; d < D; d++) args->y[(long)i * D + d] = args->x[(long)args->rows[1 + i] * D + d];
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  int count = 0;
  for (int i = 0; i < M; i++)
    if (gates[(long)i * E + *which] != 0) rows[1 + count++] = i;
  rows[0] = count;
  if (count) parallel_for(pool, run_tile, &args, (count + TILE_SIZE - 1) / TILE_SIZE);
}
