// y [BATCH, N, M] = x [BATCH, M, N] transposed, and sums [BATCH, N] of the columns of x.
//
// A tile is TILE_SIZE columns of one matrix. LINE rows at a time fill whole cache lines of y; they
// are transposed as squares of LANES x LANES.

#define LINE 16  // float32 numbers in a cache line

struct args {
  float *y, *sums;
  const float *x;
};

// Transposes columns n to end of `count` rows from m on, one number at a time.
INLINE void transpose_scalar(const float *from, float *to, float *sums, int m, int count, int n,
                             int end) {
  for (; n < end; n++) {
    float sum = 0;
    for (int i = m; i < m + count; i++) sum += to[(long)n * M + i] = from[(long)i * N + n];
    sums[n] += sum;
  }
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  long batch = tile / ((N + TILE_SIZE - 1) / TILE_SIZE);
  const float *from = args->x + batch * M * N;
  float *to = args->y + batch * M * N, *sums = args->sums + batch * N;
  int left = tile % ((N + TILE_SIZE - 1) / TILE_SIZE) * TILE_SIZE;
  int end = MIN(left + TILE_SIZE, N), m = 0;
  for (int n = left; n < end; n++) sums[n] = 0;
  for (; m + LINE <= M; m += LINE) {
    int n = left;
    for (; n + LANES <= end; n += LANES) {
      vec sum = load(sums + n);
      for (int row = m; row < m + LINE; row += LANES) {
        vec square[LANES], some = splat(0);
        UNROLL for (int i = 0; i < LANES; i++) {
          square[i] = load(from + (long)(row + i) * N + n);
          some += square[i];
        }
        sum += some;
        transpose_square(square);
        UNROLL for (int i = 0; i < LANES; i++) store(to + (long)(n + i) * M + row, square[i]);
      }
      store(sums + n, sum);
    }
    transpose_scalar(from, to, sums, m, LINE, n, end);
  }
  transpose_scalar(from, to, sums, m, M - m, left, end);
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, BATCH * ((N + TILE_SIZE - 1) / TILE_SIZE));
}
