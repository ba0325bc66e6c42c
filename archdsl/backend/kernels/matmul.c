// y [M, N] = f(a [M, K] b [K, N] + bias), for many rows.
//
// A chunk is ROWS rows of y and PANEL of its columns. Its part of b is copied into a panel
// [K, PANEL], which stays in the cache while all rows are multiplied with it, a register tile
// of TALL rows at a time (Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix
// Multiplication"). The last tile and the last panel overlap the ones before, so that no tile
// has an edge: TALL <= M and PANEL <= N.
//
// Sizes are constants: BATCH such products, M, N, K, and how far apart neighbours stand in
// memory, b[k][j] at k * B_ROW + j * B_COLUMN.

#define PANEL (WIDE * LANES)
#define ACROSS ((N + PANEL - 1) / PANEL)
#define DOWN ((M + ROWS - 1) / ROWS)

struct args {
  float *y;
  const float *a;
  const number *b;
  const float *scales;
  const weight *bias;
};

// The columns of b from j on as a panel.
INLINE void pack(const struct args *with, float *panel, int j) {
  const number *b = with->b;
#if B_ROW == 1
  // Columns lie along k: squares of LANES by LANES are turned over.
  for (int left = 0; left < PANEL; left += LANES) {
    const number *from = b + (long)(j + left) * B_COLUMN;
    int k = 0;
    for (; k + LANES <= K; k += LANES) {
      vec square[LANES];
      UNROLL for (int i = 0; i < LANES; i++)
        square[i] = numbers(from + (long)i * B_COLUMN + k) *
                    GROUP_SCALE(with->scales, j + left + i, k, K);
      turn(square);
      UNROLL for (int i = 0; i < LANES; i++) store(panel + (k + i) * PANEL + left, square[i]);
    }
    for (; k < K; k++)
      for (int i = 0; i < LANES; i++)
        panel[k * PANEL + left + i] = number_at(from + (long)i * B_COLUMN + k);
  }
#else
  for (int k = 0; k < K; k++)
    UNROLL for (int w = 0; w < WIDE; w++)
      store(panel + k * PANEL + w * LANES, numbers(b + (long)k * B_ROW + j + w * LANES));
#endif
}

INLINE void tile(const struct args *with, const float *panel, int i, int j) {
  vec sums[TALL][WIDE];
  UNROLL for (int r = 0; r < TALL; r++)
    UNROLL for (int w = 0; w < WIDE; w++) sums[r][w] = splat(0);
  const float *a = with->a + (long)i * K;
  for (int k = 0; k < K; k++) {
    vec b[WIDE];
    UNROLL for (int w = 0; w < WIDE; w++) b[w] = load(panel + k * PANEL + w * LANES);
    UNROLL for (int r = 0; r < TALL; r++) {
      vec each = splat(a[r * K + k]);
      UNROLL for (int w = 0; w < WIDE; w++) sums[r][w] += each * b[w];
    }
  }
  UNROLL for (int r = 0; r < TALL; r++)
    UNROLL for (int w = 0; w < WIDE; w++) {
      float *y = with->y + (long)(i + r) * N + j + w * LANES;
      store(y, FINISH(sums[r][w], weights, j + w * LANES));
    }
}

ALONE static void part(const void *given, int chunk) {
  const struct args *all = given;
  long each = chunk / (ACROSS * DOWN);
  struct args here = *all, *with = &here;
  here.y += each * M * N, here.a += each * M * K, here.b += each * K * N;
  chunk %= ACROSS * DOWN;
  float panel[K * PANEL] __attribute__((aligned(64)));
  int top = chunk % DOWN * ROWS, end = LEAST(top + ROWS, M);
  int j = LEAST(chunk / DOWN * PANEL, N - PANEL);
  pack(with, panel, j);
  for (int i = top; i < end; i += TALL) tile(with, panel, LEAST(i, M - TALL), j);
}

void KERNEL(PARAMETERS, struct team *team) {
  struct args with = {ARGUMENTS};
  team_run(team, part, &with, BATCH * ACROSS * DOWN);
}
