// Adds the rows of part [M, D], multiplied by the gates [M, E] of expert `which`, to the rows of
// y [M, D] with the indices `rows` (see gather_rows.c). The first expert sets the others to 0.

struct args {
  float *y;
  const float *part, *gates;
  const int *which, *rows;
};

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  for (int i = tile * TILE_SIZE; i < MIN((tile + 1) * TILE_SIZE, args->rows[0]); i++) {
    long row = args->rows[1 + i];
    float gate = args->gates[row * E + *args->which];
    const float *part = args->part + (long)i * D;
    float *y = args->y + row * D;
    for (int d = 0; d < D; d++) y[d] += gate * part[d];
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  for (long i = 0; FIRST && i < (long)M * D; i++) y[i] = 0;
  if (rows[0]) parallel_for(pool, run_tile, &args, (rows[0] + TILE_SIZE - 1) / TILE_SIZE);
}
