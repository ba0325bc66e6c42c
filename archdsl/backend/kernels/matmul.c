// y [M, N] = EPILOGUE(a [M, K] b [K, N] + bias), for many rows; BATCH such products.
//
// A tile is MC rows and PANELS_PER_TILE panels of NR columns of y. It steps along K by KC rows of
// b. In each step, the panels [KC, NR] of b are packed into contiguous memory, and stay in the
// cache. MR rows of a at a time, which fit the L1 cache, are multiplied with all panels; an
// MR x NR register tile holds the sums (Goto and van de Geijn 2008, "Anatomy of High-Performance
// Matrix Multiplication"). The last register tile and the last panel overlap those before them, so
// all have full size: MR <= M and NR <= N.
//
// All sizes are constants. b[k][j] is at k * B_ROW + j * B_COLUMN.

#define NR (NR_VECTORS * LANES)
#define KC (NR > 32 ? 384 : 768)
#define PANELS ((N + NR - 1) / NR)
#define PANEL_COLUMN(panel) MIN((panel) * NR, N - NR)
#define ROW_BLOCKS ((M + MC - 1) / MC)
#define REGISTER_TILES ((MIN(M, MC) + MR - 1) / MR)
// At least four tiles per thread, if there are enough panels.
#define PANELS_PER_TILE MAX(1, MIN(3, (long)BATCH * ROW_BLOCKS * PANELS / (4 * THREADS)))
#define COLUMN_BLOCKS ((PANELS + PANELS_PER_TILE - 1) / PANELS_PER_TILE)

#ifdef SOME_ROWS
#define ROWS all->rows[0]
#else
#define ROWS M
#endif

struct args {
  float *y;
  const float *a;
  const element *b;
  const float *scales, *offsets;
  const weight *bias;
  const float *times, *plus;  // of the epilogue; only if BATCH is 1
  const int *rows;            // [0] is the number of rows of a that count; only if BATCH is 1
};

// On the stack: at most 700 KiB for any sizes, because MC is at most about 516.
struct buffers {
  float panels[PANELS_PER_TILE][KC * NR];
  float sums[PANELS_PER_TILE][REGISTER_TILES][MR * NR];  // between two steps along K
} __attribute__((aligned(64)));

// Packs rows k0 to k0 + depth of NR columns of b, from column j on, into a panel [depth, NR].
INLINE void pack(const struct args *args, float *panel, int j, int k0, int depth) {
#if B_ROW == 1
  // The columns of b are contiguous along k: transpose squares of LANES x LANES.
  for (int left = 0; left < NR; left += LANES) {
    long from = (long)(j + left) * B_COLUMN + k0;
    int k = 0;
    for (; k + LANES <= depth; k += LANES) {
      vec square[LANES];
#if defined(QUANTIZED) || defined(BFLOAT16) || defined(FLOAT16)
      UNROLL for (int i = 0; i < LANES; i++) {
        long at = from + (long)i * B_COLUMN + k;
        square[i] = DEQUANTIZE(load_elements(args->b, at), args, at);
      }
      transpose_square(square);
#else
      load_transposed(square, args->b + from + k, B_COLUMN);
#endif
      UNROLL for (int i = 0; i < LANES; i++) store(panel + (k + i) * NR + left, square[i]);
    }
#ifndef QUANTIZED  // K is a multiple of LANES if b is quantized
    for (; k < depth; k++)
      for (int i = 0; i < LANES; i++)
        panel[k * NR + left + i] = read_weight(args->b + from + (long)i * B_COLUMN + k);
#endif
  }
#else
  for (int k = 0; k < depth; k++)
    UNROLL for (int w = 0; w < NR_VECTORS; w++)
      store(panel + k * NR + w * LANES,
            load_elements(args->b, (long)(k0 + k) * B_ROW + j + w * LANES));
#endif
}

// Adds `depth` products to the register tile of y at row i and column j. The sums are loaded from
// `partial`, unless this is the first step along K, and stored there, unless it is the last.
INLINE void multiply_tile(const struct args *args, const float *a, const float *panel,
                          float *partial, int i, int j, int depth, int is_first, int is_last) {
  vec sums[MR][NR_VECTORS];
  UNROLL for (int r = 0; r < MR; r++)
    UNROLL for (int w = 0; w < NR_VECTORS; w++)
      sums[r][w] = is_first ? splat(0) : load(partial + r * NR + w * LANES);
  for (int k = 0; k < depth; k++) {
    vec b[NR_VECTORS];
    UNROLL for (int w = 0; w < NR_VECTORS; w++) b[w] = load(panel + k * NR + w * LANES);
    UNROLL for (int r = 0; r < MR; r++) {
      vec each = splat(a[(long)r * K + k]);
      UNROLL for (int w = 0; w < NR_VECTORS; w++) sums[r][w] += each * b[w];
    }
  }
  UNROLL for (int r = 0; r < MR; r++)
    UNROLL for (int w = 0; w < NR_VECTORS; w++)
      if (is_last) {
        long at = (long)(i + r) * N + j + w * LANES;
        store(args->y + at, EPILOGUE(sums[r][w], load, load_weights, at, j + w * LANES));
      } else store(partial + r * NR + w * LANES, sums[r][w]);
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *all = given;
  long batch = tile / (COLUMN_BLOCKS * ROW_BLOCKS);
  struct args here = *all, *args = &here;
  here.y += batch * M * N, here.a += batch * M * K, here.b += batch * K * N;
  tile %= COLUMN_BLOCKS * ROW_BLOCKS;
  struct buffers buffers;
  int top = tile / COLUMN_BLOCKS * MC, tiles = (MIN(MC, ROWS - top) + MR - 1) / MR;
  if (tiles <= 0) return;
  int first = tile % COLUMN_BLOCKS * PANELS_PER_TILE, panels = MIN(PANELS_PER_TILE, PANELS - first);
  for (int k = 0; k < K; k += KC) {
    int depth = MIN(KC, K - k);
    for (int p = 0; p < panels; p++)
      pack(args, buffers.panels[p], PANEL_COLUMN(first + p), k, depth);
    for (int t = 0; t < tiles; t++) {
      int i = MIN(top + t * MR, M - MR);
      const float *rows = args->a + (long)i * K + k;
      for (int p = 0; p < panels; p++)
        multiply_tile(args, rows, buffers.panels[p], buffers.sums[p][t], i, PANEL_COLUMN(first + p),
                      depth, k == 0, k + depth == K);
    }
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, BATCH * COLUMN_BLOCKS * ROW_BLOCKS);
}
