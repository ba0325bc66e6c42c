// y [BATCH, N, M]: each x [M, N] turned over; and sums [BATCH, N] of x's columns.
//
// A chunk is RUN columns. Of LINE rows, as many as fill a line of the cache in y, squares of
// LANES by LANES are turned over.

#define LINE 16

struct args {
  float *y, *sums;
  const float *x;
};

// The columns of `from` from n up to end, of `count` rows from m on, one by one.
INLINE void edge(const float *from, float *to, float *sums, int m, int count, int n, int end) {
  for (; n < end; n++) {
    float sum = 0;
    for (int i = m; i < m + count; i++) sum += to[(long)n * M + i] = from[(long)i * N + n];
    sums[n] += sum;
  }
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  long each = tile / ((N + RUN - 1) / RUN);
  const float *from = args->x + each * M * N;
  float *to = args->y + each * M * N, *sums = args->sums + each * N;
  int left = tile % ((N + RUN - 1) / RUN) * RUN, end = MIN(left + RUN, N), m = 0;
  for (int n = left; n < end; n++) sums[n] = 0;
  for (; m + LINE <= M; m += LINE) {
    int n = left;
    for (; n + LANES <= end; n += LANES) {
      vec sum = load(sums + n);
      for (int down = m; down < m + LINE; down += LANES) {
        vec square[LANES], some = splat(0);
        UNROLL for (int i = 0; i < LANES; i++) {
          square[i] = load(from + (long)(down + i) * N + n);
          some += square[i];
        }
        sum += some;
        turn(square);
        UNROLL for (int i = 0; i < LANES; i++) store(to + (long)(n + i) * M + down, square[i]);
      }
      store(sums + n, sum);
    }
    edge(from, to, sums, m, LINE, n, end);
  }
  edge(from, to, sums, m, M - m, left, end);
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, BATCH * ((N + RUN - 1) / RUN));
}
