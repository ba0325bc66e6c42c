// y [M, N] = EPILOGUE(a [M, K] b [N, K]^T + bias), for few rows of a: b is read from memory once.
//
// A tile is TILE_SIZE rows of b. A block of A_ROWS rows of a is multiplied with B_ROWS rows of b
// at a time: as many sums as fit in registers. Rows of a that fill no block are blocks of one row.
// The lanes of the sums are added at the end.

#define B_ROWS 4
#define AHEAD 8  // rows of b to prefetch
#define A_ROWS (M < 3 ? M : 3)
#define BLOCKS (M / A_ROWS + M % A_ROWS)

#ifdef SOME_ROWS
#define ROWS args.rows[0]
#else
#define ROWS M
#endif

struct args {
  float *y;
  const float *a;
  const element *b;
  const float *scales, *offsets;
  const weight *bias;
  const float *times, *plus;
  const int *rows;  // [0] is the number of rows of a that count
  const struct a_block *blocks;  // blocks `first` to `last` - 1 of a, prepared
  int first, last;
};

// Adds the lanes of the sums of row i of a with `fold` rows of b, and stores them in y.
INLINE void store_sums(const struct args *args, int i, int j, int fold, const vec sums[B_ROWS]) {
  float *y = args->y + (long)i * N + j;
  if (fold == B_ROWS) *(four_loose *)y = four_sums(sums[0], sums[1], sums[2], sums[3]);
  else UNROLL for (int f = 0; f < fold; f++) y[f] = sum(sums[f]);
}

#if defined(QUANTIZED)

// A quantized b is multiplied in integers. Each group of a is quantized to 16 bits with one scale;
// the products of a group are added exactly (for 8 bits the sum is below 2^28).
//
// The blocks of a that are multiplied in one pass over b are on the stack: at most 768 KiB, which
// is one block if K is 65536. Together with the scales in multiply_tile that is less than 1 MiB.
#define BLOCK_BYTES (768 << 10)
#define BLOCKS_PER_PASS (int)MIN(BLOCKS, MAX(1, MIN(4, BLOCK_BYTES / sizeof(struct a_block))))
#define GROUPS (K / GROUP)
#define PADDED_K ((K + STEP - 1) / STEP * STEP)
#define VECTORS_PER_STEP (STEP / (2 * LANES))
struct a_block {
  short a[A_ROWS][PADDED_K];  // in the order in which elements of b are in vectors
  float scales[A_ROWS][GROUPS], totals[A_ROWS][GROUPS];
} __attribute__((aligned(64)));

// Quantizes a group of a row of a to 16 bits.
INLINE void quantize_group(struct a_block *block, short *to, const float *from, int r, int g) {
  vec high = splat(0), total = splat(0);
  UNROLL for (int t = 0; t < GROUP; t += LANES) {
    vec v = load(from + t);
    high = maximum(high, absolute(v));
    total += v;
  }
  float top = max_lane(high), by = top > 0 ? 32767 / top : 0;
  block->totals[r][g] = sum(total);
  block->scales[r][g] = top / 32767 + 0 * block->totals[r][g];  // NaN if the group has a NaN
  UNROLL for (int t = 0; t < GROUP; t += LANES)
    *(shalf *)(to + t) = __builtin_convertvector(round_to_int(load(from + t) * by), shalf);
}

INLINE void prepare(struct a_block *block, const float *a, int rows) {
  for (int r = 0; r < rows; r++)
    for (int k = 0; k < K; k += STEP) {
      short plain[STEP] = {};
      for (int i = 0; i < MIN(STEP, K - k); i += GROUP)
        quantize_group(block, plain + i, a + (long)r * K + k + i, r, (k + i) / GROUP);
      UNROLL for (int t = 0; t < VECTORS_PER_STEP; t++)
        UNROLL for (int i = 0; i < 2 * LANES; i++)
          block->a[r][k + t * 2 * LANES + i] = plain[INDEX_IN_STEP(t, i)];
    }
}

// Multiplies the scales of a row of b by those of a row of a into `by`. Returns the products with
// the offsets of b, to be added over the lanes.
INLINE vec combine_scales(const struct args *args, const struct a_block *block, float *by, int r,
                          long row) {
  const float *scales = args->scales + row * GROUPS;
  vec sums = splat(0);
  int g = 0;
  for (; g + LANES <= GROUPS; g += LANES) {
    store(by + g, load(scales + g) * load(block->scales[r] + g));
    if (OFFSETS) sums += load(args->offsets + row * GROUPS + g) * load(block->totals[r] + g);
  }
  for (; g < GROUPS; g++) {
    by[g] = scales[g] * block->scales[r][g];
    if (OFFSETS) sums[0] += args->offsets[row * GROUPS + g] * block->totals[r][g];
  }
  return sums;
}

// Adds the products of the next `depth` elements of `fold` rows of b; both are constants.
INLINE void multiply_step(const struct a_block *block, const element *b, const float *by, vec *sums,
                          int k, int depth, int rows, int fold) {
  UNROLL for (int f = 0; f < fold; f++) {
    element last[BYTES(STEP)] = {};
    const element *p = b + BYTES(f * K + k);
    __builtin_prefetch(p + BYTES(AHEAD * K));
    if (depth < STEP) {
      for (int i = 0; i < BYTES(depth); i++) last[i] = p[i];
      p = last;
    }
    ivec part[A_ROWS];
    UNROLL for (int r = 0; r < rows; r++) part[r] = (ivec){};
    UNROLL for (int t = 0; t < VECTORS_PER_STEP; t++) {
      svec elements = load_int16(p, t);
      UNROLL for (int r = 0; r < rows; r++)
        part[r] += multiply_add_pairs(elements, *(const svec *)(block->a[r] + k + t * 2 * LANES));
    }
    UNROLL for (int r = 0; r < rows; r++) {
      const float *scales = by + (r * B_ROWS + f) * (GROUPS + LANES) + k / GROUP;
      vec spread;
      UNROLL for (int i = 0; i < LANES; i++) spread[i] = scales[GROUP_OF(i)];
      sums[r * B_ROWS + f] += __builtin_convertvector(part[r], vec) * spread;
    }
  }
}

INLINE void multiply_tile(const struct args *args, const struct a_block *block, int i, int j,
                          int rows, int fold) {
  float by[A_ROWS][B_ROWS][GROUPS + LANES];
  vec sums[A_ROWS][B_ROWS];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int f = 0; f < fold; f++) {
      sums[r][f] = combine_scales(args, block, by[r][f], r, j + f);
      UNROLL for (int g = GROUPS; g < PADDED_K / GROUP; g++) by[r][f][g] = 0;
    }
  const element *b = args->b + BYTES((long)j * K);
  int k = 0;
  for (; k + STEP <= K; k += STEP) multiply_step(block, b, by[0][0], sums[0], k, STEP, rows, fold);
  if (K % STEP) multiply_step(block, b, by[0][0], sums[0], k, K % STEP, rows, fold);
  UNROLL for (int r = 0; r < rows; r++) store_sums(args, i + r, j, fold, sums[r]);
}

#else

#define BLOCKS_PER_PASS BLOCKS
#define CHAINS (M == 1 ? 2 : 1)  // more independent sums, to hide the latency of an addition
struct a_block {
  const float *a;
};

INLINE void prepare(struct a_block *block, const float *a, int rows) { block->a = a; }

INLINE void multiply_tile(const struct args *args, const struct a_block *block, int i, int j,
                          int rows, int fold) {
  vec sums[A_ROWS][B_ROWS][CHAINS];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int f = 0; f < fold; f++)
      UNROLL for (int t = 0; t < CHAINS; t++) sums[r][f][t] = splat(0);
  const float *a = block->a;
  const element *b = args->b + (long)j * K;
  int k = 0;
  for (; k + CHAINS * LANES <= K; k += CHAINS * LANES)
    UNROLL for (int t = 0; t < CHAINS; t++)
      UNROLL for (int f = 0; f < fold; f++) {
        __builtin_prefetch(b + (long)(f + AHEAD) * K + k + t * LANES);
        vec w = load_weights(b + (long)f * K + k + t * LANES);
        UNROLL for (int r = 0; r < rows; r++)
          sums[r][f][t] += w * load(a + (long)r * K + k + t * LANES);
      }
  UNROLL for (int r = 0; r < rows; r++) {
    vec all[B_ROWS];
    UNROLL for (int f = 0; f < fold; f++) {
      all[f] = CHAINS == 2 ? sums[r][f][0] + sums[r][f][CHAINS - 1] : sums[r][f][0];
      for (int rest = k; rest < K; rest++)
        all[f][0] += a[(long)r * K + rest] * read_weight(b + (long)f * K + rest);
    }
    store_sums(args, i + r, j, fold, all);
  }
}

#endif

// Applies the epilogue to columns j to end of a row of y.
INLINE void apply_epilogue(const struct args *args, int i, int j, int end) {
  long at = (long)i * N + j;
  float *y = args->y;
  for (; j + LANES <= end; j += LANES, at += LANES)
    store(y + at, EPILOGUE(load(y + at), load, load_weights, at, j));
  for (; j < end; j++, at++) y[at] = EPILOGUE(splat(y[at]), broadcast, broadcast_weight, at, j)[0];
}

// The blocks of a: M / A_ROWS blocks of A_ROWS rows, then blocks of one row.
INLINE int rows_of(int index) { return index < M / A_ROWS ? A_ROWS : 1; }
INLINE int first_row(int index) {
  return MIN(index, M / A_ROWS) * A_ROWS + MAX(index - M / A_ROWS, 0);
}

// Multiplies rows start to end of b with a block of a, whose number of rows is a constant.
INLINE void multiply_rows(const struct args *args, int index, int rows, int start, int end) {
  const struct a_block *block = args->blocks + index - args->first;
  int i = first_row(index), j = start;
  for (; j + B_ROWS <= end; j += B_ROWS) multiply_tile(args, block, i, j, rows, B_ROWS);
  for (; j < end; j++) multiply_tile(args, block, i, j, rows, 1);
  for (int r = 0; r < rows; r++) apply_epilogue(args, i + r, start, end);
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  int start = tile * TILE_SIZE, end = MIN(start + TILE_SIZE, N);
  for (int index = args->first; index < args->last; index++)
    if (rows_of(index) == A_ROWS) multiply_rows(args, index, A_ROWS, start, end);
    else multiply_rows(args, index, 1, start, end);
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct a_block blocks[BLOCKS_PER_PASS];
  struct args args = {ARGUMENTS, .blocks = blocks};
  int blocks_used = BLOCKS;
  while (blocks_used && first_row(blocks_used - 1) >= ROWS) blocks_used--;
  for (; args.first < blocks_used; args.first = args.last) {
    args.last = MIN(args.first + BLOCKS_PER_PASS, blocks_used);
    for (int index = args.first; index < args.last; index++)
      prepare(blocks + index - args.first, args.a + (long)first_row(index) * K, rows_of(index));
    parallel_for(pool, run_tile, &args, (N + TILE_SIZE - 1) / TILE_SIZE);
  }
}
