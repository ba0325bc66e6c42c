// y [M, N] = f(a [M, K] b [K, N] + bias), for many rows.
//
// A chunk is ROWS rows of y and BESIDE panels of PANEL columns. It goes along k in steps of DEEP:
// of b the panels [DEEP, PANEL] are laid out anew, one behind the other, and TALL rows of a at a
// time, which the nearest cache then holds, are multiplied with all of them, a register tile for
// each (Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication"). The last
// tile and the last panel overlap the ones before, so that no tile has an edge: TALL <= M and
// PANEL <= N.
//
// Sizes are constants: BATCH such products, M, N, K, and how far apart neighbours stand in
// memory, b[k][j] at k * B_ROW + j * B_COLUMN.

#define PANEL (WIDE * LANES)
#define DEEP (PANEL > 32 ? 384 : 768)
#define PANELS ((N + PANEL - 1) / PANEL)
#define COLUMN(panel) MIN((panel) * PANEL, N - PANEL)
#define DOWN ((M + ROWS - 1) / ROWS)
#define TILES ((MIN(M, ROWS) + TALL - 1) / TALL)
// Several chunks for each of the threads.
#define BESIDE MAX(1, MIN(3, (long)BATCH * DOWN * PANELS / (4 * THREADS)))
#define ACROSS ((PANELS + BESIDE - 1) / BESIDE)

struct args {
  float *y;
  const float *a;
  const number *b;
  const float *scales, *offsets;
  const weight *bias;
  const float *times, *plus;  // of a single product
};

// On the stack, 700 KiB at most whatever the sizes are: ROWS are about 516 at most.
struct blocks {
  float panels[BESIDE][DEEP * PANEL];
  float sums[BESIDE][TILES][TALL * PANEL];  // of tiles that are not at the end of k
} __attribute__((aligned(64)));

// The columns of b from j on, and of them what stands from k0 on.
INLINE void pack(const struct args *args, float *panel, int j, int k0, int depth) {
#if B_ROW == 1
  // Columns lie along k: squares of LANES by LANES are turned over.
  for (int left = 0; left < PANEL; left += LANES) {
    long from = (long)(j + left) * B_COLUMN + k0;
    int k = 0;
    for (; k + LANES <= depth; k += LANES) {
      vec square[LANES];
#if defined(WHOLE) || defined(BFLOAT16) || defined(FLOAT16)
      UNROLL for (int i = 0; i < LANES; i++) {
        long at = from + (long)i * B_COLUMN + k;
        square[i] = FULL(numbers(args->b, at), args, at);
      }
      turn(square);
#else
      load_turned(square, args->b + from + k, B_COLUMN);
#endif
      UNROLL for (int i = 0; i < LANES; i++) store(panel + (k + i) * PANEL + left, square[i]);
    }
#ifndef WHOLE  // which are whole groups
    for (; k < depth; k++)
      for (int i = 0; i < LANES; i++)
        panel[k * PANEL + left + i] = one(args->b + from + (long)i * B_COLUMN + k);
#endif
  }
#else
  for (int k = 0; k < depth; k++)
    UNROLL for (int w = 0; w < WIDE; w++)
      store(panel + k * PANEL + w * LANES,
            numbers(args->b, (long)(k0 + k) * B_ROW + j + w * LANES));
#endif
}

// The tile of y at row i and column j goes on by `depth` along k, and is whole behind the last.
INLINE void multiply_tile(const struct args *args, const float *a, const float *panel, float *kept, int i,
                 int j, int depth, int begins, int ends) {
  vec sums[TALL][WIDE];
  UNROLL for (int r = 0; r < TALL; r++)
    UNROLL for (int w = 0; w < WIDE; w++)
      sums[r][w] = begins ? splat(0) : load(kept + r * PANEL + w * LANES);
  for (int k = 0; k < depth; k++) {
    vec b[WIDE];
    UNROLL for (int w = 0; w < WIDE; w++) b[w] = load(panel + k * PANEL + w * LANES);
    UNROLL for (int r = 0; r < TALL; r++) {
      vec each = splat(a[(long)r * K + k]);
      UNROLL for (int w = 0; w < WIDE; w++) sums[r][w] += each * b[w];
    }
  }
  UNROLL for (int r = 0; r < TALL; r++)
    UNROLL for (int w = 0; w < WIDE; w++)
      if (ends) {
        long at = (long)(i + r) * N + j + w * LANES;
        store(args->y + at, EPILOGUE(sums[r][w], load, weights, at, j + w * LANES));
      } else store(kept + r * PANEL + w * LANES, sums[r][w]);
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *all = given;
  long each = tile / (ACROSS * DOWN);
  struct args here = *all, *args = &here;
  here.y += each * M * N, here.a += each * M * K, here.b += each * K * N;
  tile %= ACROSS * DOWN;
  struct blocks blocks;
  int top = tile / ACROSS * ROWS, tiles = (MIN(ROWS, M - top) + TALL - 1) / TALL;
  int first = tile % ACROSS * BESIDE, panels = MIN(BESIDE, PANELS - first);
  for (int k = 0; k < K; k += DEEP) {
    int depth = MIN(DEEP, K - k);
    for (int p = 0; p < panels; p++) pack(args, blocks.panels[p], COLUMN(first + p), k, depth);
    for (int t = 0; t < tiles; t++) {
      int i = MIN(top + t * TALL, M - TALL);
      const float *rows = args->a + (long)i * K + k;
      for (int p = 0; p < panels; p++)
        multiply_tile(args, rows, blocks.panels[p], blocks.sums[p][t], i, COLUMN(first + p), depth, k == 0,
             k + depth == K);
    }
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, BATCH * ACROSS * DOWN);
}
