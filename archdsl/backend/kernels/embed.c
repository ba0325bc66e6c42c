// y [M, D]: for each of the tokens [M] its row of a table [ROWS, D]; zeros if the token is outside
// the table. A tile is TILE_SIZE tokens.

struct args {
  float *y;
  const int *tokens;
  const element *table;
  const float *scales, *offsets;
};

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  for (int i = tile * TILE_SIZE; i < MIN((tile + 1) * TILE_SIZE, M); i++) {
    long row = args->tokens[i];
    float *y = args->y + (long)i * D;
    int d = 0, valid = row >= 0 && row < ROWS;
    for (; !valid && d < D; d++) y[d] = 0;
    for (; d + LANES <= D; d += LANES)
      store(y + d, DEQUANTIZE(load_elements(args->table, row * D + d), args, row * D + d));
#ifndef QUANTIZED  // the rows of a quantized table are multiples of a vector
    for (; d < D; d++) y[d] = read_weight(args->table + row * D + d);
#endif
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, (M + TILE_SIZE - 1) / TILE_SIZE);
}
