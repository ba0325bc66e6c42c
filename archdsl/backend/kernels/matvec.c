// y [M, N] = f(a [M, K] b [N, K]^T + bias), for few rows: b is read once.
//
// A chunk is a run of b's rows. Of a FEW rows, or one where no more are left, are multiplied with
// FOLD of b's at a time, along k, and what the lanes hold is summed at the end.

#define FOLD 4
#define AHEAD 8  // rows of b that are asked for before they are needed
#define FEW (M < 3 ? M : 3)
#define BLOCKS (M / FEW + M % FEW)

struct args {
  float *y;
  const float *a;
  const number *b;
  const float *scales, *offsets;
  const weight *bias;
  const float *times, *plus;
  const struct few *few;  // the blocks of a from `first` to before `last`, prepared
  int first, last;
};

// The sums of a row and `fold` of b's go where they belong.
INLINE void keep(const struct args *args, int i, int j, int fold, const vec sums[FOLD]) {
  float *y = args->y + (long)i * N + j;
  if (fold == FOLD) *(four_loose *)y = four_sums(sums[0], sums[1], sums[2], sums[3]);
  else UNROLL for (int f = 0; f < fold; f++) y[f] = sum(sums[f]);
}

#if defined(WHOLE)

// Whole numbers are multiplied as such: each group of a is made of 16 bits, of which the largest
// number has all, and its products are summed exactly (a group of b with 8 bits: below 2^28).
//
// The blocks of a that are multiplied at once lie on the stack: 768 KiB at most, and one where K
// is 65536. With `by` of a tile that is less than 1 MiB.
#define SCRATCH (768 << 10)
#define AT_ONCE (int)MIN(BLOCKS, MAX(1, MIN(4, SCRATCH / sizeof(struct few))))
#define GROUPS (K / GROUP)
#define WHOLE_K ((K + STEP - 1) / STEP * STEP)
#define TURNS (STEP / (2 * LANES))
struct few {
  short a[FEW][WHOLE_K];  // as the numbers of b lie in vectors
  float scales[FEW][GROUPS], totals[FEW][GROUPS];
} __attribute__((aligned(64)));

// A group of a with all of 16 bits.
INLINE void shortened(struct few *few, short *to, const float *from, int r, int g) {
  vec most = splat(0), total = splat(0);
  UNROLL for (int t = 0; t < GROUP; t += LANES) {
    vec v = load(from + t);
    most = larger(most, absolute(v));
    total += v;
  }
  float high = largest(most), by = high > 0 ? 32767 / high : 0;
  few->totals[r][g] = sum(total);
  few->scales[r][g] = high / 32767 + 0 * few->totals[r][g];  // of what is no number, none
  UNROLL for (int t = 0; t < GROUP; t += LANES)
    *(shalf *)(to + t) = __builtin_convertvector(nearest(load(from + t) * by), shalf);
}

INLINE void prepare(struct few *few, const float *a, int rows) {
  for (int r = 0; r < rows; r++)
    for (int k = 0; k < K; k += STEP) {
      short plain[STEP] = {};
      for (int i = 0; i < MIN(STEP, K - k); i += GROUP)
        shortened(few, plain + i, a + (long)r * K + k + i, r, (k + i) / GROUP);
      UNROLL for (int t = 0; t < TURNS; t++)
        UNROLL for (int i = 0; i < 2 * LANES; i++)
          few->a[r][k + t * 2 * LANES + i] = plain[PLACED(t, i)];
    }
}

// The scales of a row of b times those of a; and the products of its offsets, not yet summed.
INLINE vec scale(const struct args *args, const struct few *few, float *by, int r, long row) {
  const float *scales = args->scales + row * GROUPS;
  vec sums = splat(0);
  int g = 0;
  for (; g + LANES <= GROUPS; g += LANES) {
    store(by + g, load(scales + g) * load(few->scales[r] + g));
    if (OFFSETS) sums += load(args->offsets + row * GROUPS + g) * load(few->totals[r] + g);
  }
  for (; g < GROUPS; g++) {
    by[g] = scales[g] * few->scales[r][g];
    if (OFFSETS) sums[0] += args->offsets[row * GROUPS + g] * few->totals[r][g];
  }
  return sums;
}

// The numbers of b that are the next `depth` of each of `fold` rows, a constant.
INLINE void step(const struct few *few, const number *b, const float *by, vec *sums, int k,
                 int depth, int rows, int fold) {
  UNROLL for (int f = 0; f < fold; f++) {
    number last[BYTES(STEP)] = {};
    const number *p = b + BYTES(f * K + k);
    __builtin_prefetch(p + BYTES(AHEAD * K));
    if (depth < STEP) {
      for (int i = 0; i < BYTES(depth); i++) last[i] = p[i];
      p = last;
    }
    ivec part[FEW];
    UNROLL for (int r = 0; r < rows; r++) part[r] = (ivec){};
    UNROLL for (int t = 0; t < TURNS; t++) {
      svec numbers = whole(p, t);
      UNROLL for (int r = 0; r < rows; r++)
        part[r] += pairs(numbers, *(const svec *)(few->a[r] + k + t * 2 * LANES));
    }
    UNROLL for (int r = 0; r < rows; r++) {
      const float *scales = by + (r * FOLD + f) * (GROUPS + LANES) + k / GROUP;
      vec spread;
      UNROLL for (int i = 0; i < LANES; i++) spread[i] = scales[GROUP_OF(i)];
      sums[r * FOLD + f] += __builtin_convertvector(part[r], vec) * spread;
    }
  }
}

INLINE void multiply_tile(const struct args *args, const struct few *few, int i, int j, int rows, int fold) {
  float by[FEW][FOLD][GROUPS + LANES];
  vec sums[FEW][FOLD];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int f = 0; f < fold; f++) {
      sums[r][f] = scale(args, few, by[r][f], r, j + f);
      UNROLL for (int g = GROUPS; g < WHOLE_K / GROUP; g++) by[r][f][g] = 0;
    }
  const number *b = args->b + BYTES((long)j * K);
  int k = 0;
  for (; k + STEP <= K; k += STEP) step(few, b, by[0][0], sums[0], k, STEP, rows, fold);
  if (K % STEP) step(few, b, by[0][0], sums[0], k, K % STEP, rows, fold);
  UNROLL for (int r = 0; r < rows; r++) keep(args, i + r, j, fold, sums[r]);
}

#else

#define AT_ONCE BLOCKS
#define TWICE (M == 1 ? 2 : 1)  // sums enough for the processor's pipeline
struct few {
  const float *a;
};

INLINE void prepare(struct few *few, const float *a, int rows) { few->a = a; }

INLINE void multiply_tile(const struct args *args, const struct few *few, int i, int j, int rows, int fold) {
  vec sums[FEW][FOLD][TWICE];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int f = 0; f < fold; f++)
      UNROLL for (int t = 0; t < TWICE; t++) sums[r][f][t] = splat(0);
  const float *a = few->a;
  const number *b = args->b + (long)j * K;
  int k = 0;
  for (; k + TWICE * LANES <= K; k += TWICE * LANES)
    UNROLL for (int t = 0; t < TWICE; t++)
      UNROLL for (int f = 0; f < fold; f++) {
        __builtin_prefetch(b + (long)(f + AHEAD) * K + k + t * LANES);
        vec w = weights(b + (long)f * K + k + t * LANES);
        UNROLL for (int r = 0; r < rows; r++)
          sums[r][f][t] += w * load(a + (long)r * K + k + t * LANES);
      }
  UNROLL for (int r = 0; r < rows; r++) {
    vec all[FOLD];
    UNROLL for (int f = 0; f < fold; f++) {
      all[f] = TWICE == 2 ? sums[r][f][0] + sums[r][f][TWICE - 1] : sums[r][f][0];
      for (int rest = k; rest < K; rest++)
        all[f][0] += a[(long)r * K + rest] * one(b + (long)f * K + rest);
    }
    keep(args, i + r, j, fold, all);
  }
}

#endif

// What is left to do with sums once they are there.
INLINE void finish(const struct args *args, int i, int j, int end) {
  long at = (long)i * N + j;
  float *y = args->y;
  for (; j + LANES <= end; j += LANES, at += LANES)
    store(y + at, EPILOGUE(load(y + at), load, weights, at, j));
  for (; j < end; j++, at++) y[at] = EPILOGUE(splat(y[at]), same, everywhere, at, j)[0];
}

INLINE int rows(int block) { return block < M / FEW ? FEW : 1; }
INLINE int place(int block) { return MIN(block, M / FEW) * FEW + MAX(block - M / FEW, 0); }

// A run of b times a block of a, whose `rows` are a constant.
INLINE void run(const struct args *args, int block, int rows, int start, int end) {
  const struct few *few = args->few + block - args->first;
  int i = place(block), j = start;
  for (; j + FOLD <= end; j += FOLD) multiply_tile(args, few, i, j, rows, FOLD);
  for (; j < end; j++) multiply_tile(args, few, i, j, rows, 1);
  for (int r = 0; r < rows; r++) finish(args, i + r, start, end);
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  int start = tile * RUN, end = MIN(start + RUN, N);
  for (int block = args->first; block < args->last; block++)
    if (rows(block) == FEW) run(args, block, FEW, start, end);
    else run(args, block, 1, start, end);
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct few few[AT_ONCE];
  struct args args = {ARGUMENTS, .few = few};
  for (; args.first < BLOCKS; args.first = args.last) {
    args.last = MIN(args.first + AT_ONCE, BLOCKS);
    for (int block = args.first; block < args.last; block++)
      prepare(few + block - args.first, args.a + (long)place(block) * K, rows(block));
    parallel_for(pool, run_tile, &args, (N + RUN - 1) / RUN);
  }
}
