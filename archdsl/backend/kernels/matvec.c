// y [M, N] = f(a [M, K] b [N, K]^T + bias), for few rows: b is read once.
//
// A chunk is a run of b's rows. Up to FEW rows of a are multiplied with FOLD of b's at a time,
// along k, and what the lanes hold is summed at the end.

#define FOLD 4
#define AHEAD 8  // rows of b that are asked for before they are needed
#define FEW (M < 3 ? M : 3)

struct args {
  float *y;
  const float *a;
  const number *b;
  const float *scales, *offsets;
  const weight *bias;
};

#if defined(WHOLE)

// Whole numbers are multiplied as such: each group of a is made of 16 bits, of which the largest
// number has all, and its products are summed exactly (a group of b with 8 bits: below 2^28).
#define GROUPS (K / GROUP)
#define STEP MOST(GROUP, 2 * LANES)
struct few {
  short a[FEW][K];
  float scales[FEW][GROUPS], totals[FEW][GROUPS];
} __attribute__((aligned(64)));

INLINE void prepare(struct few *few, const float *a, int rows) {
  for (int r = 0; r < rows; r++)
    for (int g = 0; g < GROUPS; g++) {
      const float *from = a + (long)r * K + g * GROUP;
      vec most = splat(0), total = splat(0);
      UNROLL for (int t = 0; t < GROUP; t += LANES) {
        vec v = load(from + t);
        most = larger(most, larger(v, -v));
        total += v;
      }
      float high = largest(most), by = high > 0 ? 32767 / high : 0;
      few->totals[r][g] = sum(total);
      few->scales[r][g] = high / 32767 + 0 * few->totals[r][g];  // of what is no number, none
      UNROLL for (int t = 0; t < GROUP; t += LANES)
        *(shalf *)(few->a[r] + g * GROUP + t) =
            __builtin_convertvector(nearest(load(from + t) * by), shalf);
    }
}

// The scales of a row of b times those of a, and the sum of its offsets.
INLINE float scale(const struct args *with, const struct few *few, float *by, int r, long row) {
  const float *scales = with->scales + row * GROUPS;
  vec sums = splat(0);
  float total = 0;
  int g = 0;
  for (; g + LANES <= GROUPS; g += LANES) {
    store(by + g, load(scales + g) * load(few->scales[r] + g));
    if (OFFSETS) sums += load(with->offsets + row * GROUPS + g) * load(few->totals[r] + g);
  }
  for (; g < GROUPS; g++) {
    by[g] = scales[g] * few->scales[r][g];
    if (OFFSETS) total += with->offsets[row * GROUPS + g] * few->totals[r][g];
  }
  return total + sum(sums);
}

// The scale of each lane's pair: of one group, or of two beside one another.
INLINE vec spread(const float *by) {
#if GROUP < 2 * LANES
  vec both;
  UNROLL for (int i = 0; i < LANES; i++) both[i] = by[2 * i / GROUP];
  return both;
#else
  return splat(*by);
#endif
}

INLINE void tile(const struct args *with, const struct few *few, int i, int j, int rows, int fold) {
  float by[FEW][FOLD][GROUPS], totals[FEW][FOLD];
  vec sums[FEW][FOLD];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int f = 0; f < fold; f++) {
      totals[r][f] = scale(with, few, by[r][f], r, j + f);
      sums[r][f] = splat(0);
    }
  for (int k = 0; k < K; k += STEP)
    UNROLL for (int f = 0; f < fold; f++) {
      long at = (long)(j + f) * K + k;
      __builtin_prefetch(with->b + PLACE(at + AHEAD * K));
      ivec part[FEW];
      UNROLL for (int r = 0; r < rows; r++) part[r] = (ivec){};
      UNROLL for (int t = 0; t < STEP; t += 2 * LANES) {
        svec b = whole(with->b, at, t);
        UNROLL for (int r = 0; r < rows; r++)
          part[r] += pairs(b, *(const sloose *)(few->a[r] + k + t));
      }
      UNROLL for (int r = 0; r < rows; r++)
        sums[r][f] += __builtin_convertvector(part[r], vec) * spread(by[r][f] + k / GROUP);
    }
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int f = 0; f < fold; f++)
      with->y[(long)(i + r) * N + j + f] = sum(sums[r][f]) + totals[r][f];
}

#else

#define TWICE (M == 1 ? 2 : 1)  // sums enough for the processor's pipeline
struct few {
  const float *a;
};

INLINE void prepare(struct few *few, const float *a, int rows) { few->a = a; }

INLINE void tile(const struct args *with, const struct few *few, int i, int j, int rows, int fold) {
  vec sums[FEW][FOLD][TWICE];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int f = 0; f < fold; f++)
      UNROLL for (int t = 0; t < TWICE; t++) sums[r][f][t] = splat(0);
  const float *a = few->a;
  const number *b = with->b + (long)j * K;
  int k = 0;
  for (; k + TWICE * LANES <= K; k += TWICE * LANES)
    UNROLL for (int t = 0; t < TWICE; t++)
      UNROLL for (int f = 0; f < fold; f++) {
        __builtin_prefetch(b + (long)(f + AHEAD) * K + k + t * LANES);
        vec w = weights(b + (long)f * K + k + t * LANES);
        UNROLL for (int r = 0; r < rows; r++)
          sums[r][f][t] += w * load(a + (long)r * K + k + t * LANES);
      }
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int f = 0; f < fold; f++) {
      float total = sum(TWICE == 2 ? sums[r][f][0] + sums[r][f][TWICE - 1] : sums[r][f][0]);
      for (int rest = k; rest < K; rest++)
        total += a[(long)r * K + rest] * one(b + (long)f * K + rest);
      with->y[(long)(i + r) * N + j + f] = total;
    }
}

#endif

// What is left to do with sums once they are there.
INLINE void finish(const struct args *with, int i, int j, int end) {
  float *y = with->y + (long)i * N;
  for (; j + LANES <= end; j += LANES) store(y + j, FINISH(load(y + j), weights, j));
  for (; j < end; j++) y[j] = FINISH(splat(y[j]), everywhere, j)[0];
}

// `rows` of a from i on, which is a constant, times a run of b.
INLINE void run(const struct args *with, int i, int rows, int start, int end) {
  struct few few;
  prepare(&few, with->a + (long)i * K, rows);
  int j = start;
  for (; j + FOLD <= end; j += FOLD) tile(with, &few, i, j, rows, FOLD);
  for (; j < end; j++) tile(with, &few, i, j, rows, 1);
  for (int r = 0; r < rows; r++) finish(with, i + r, start, end);
}

ALONE static void part(const void *given, int chunk) {
  const struct args *with = given;
  int start = chunk * RUN, end = LEAST(start + RUN, N), i = 0;
  for (; i + FEW <= M; i += FEW) run(with, i, FEW, start, end);
  for (; i < M; i++) run(with, i, 1, start, end);
}

void KERNEL(PARAMETERS, struct team *team) {
  struct args with = {ARGUMENTS};
  team_run(team, part, &with, (N + RUN - 1) / RUN);
}
