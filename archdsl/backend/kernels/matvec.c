// y [M, N] = f(a [M, K] b [N, K]^T + bias), for few rows: b is read once.
//
// A chunk is a run of b's rows. Of b FOLD rows at a time are multiplied with up to FEW rows of
// a, along k, and what the lanes hold is summed at the end.

#define FOLD 4
#define AHEAD 8  // rows of b that are asked for before they are needed
#define FEW (M < 3 ? M : 3)
#define TWICE (M == 1 ? 2 : 1)  // sums enough for the processor's pipeline

struct args {
  float *y;
  const float *a;
  const number *b;
  const float *scales;
  const weight *bias;
};

#if defined(INT8)
// A group of each row of b times the rows of a, then times the group's scale; K is in groups.
INLINE int along(const struct args *with, const float *a, const number *b, int j, int rows,
                 int fold, vec sums[FEW][FOLD][TWICE]) {
  for (int k = 0; k < K; k += GROUP)
    UNROLL for (int f = 0; f < fold; f++) {
      __builtin_prefetch(b + (long)(f + AHEAD) * K + k);
      vec part[FEW];
      UNROLL for (int r = 0; r < rows; r++) part[r] = splat(0);
      UNROLL for (int t = 0; t < GROUP; t += LANES) {
        vec w = numbers(b + (long)f * K + k + t);
        UNROLL for (int r = 0; r < rows; r++) part[r] += w * load(a + (long)r * K + k + t);
      }
      vec scale = GROUP_SCALE(with->scales, j + f, k, K);
      UNROLL for (int r = 0; r < rows; r++) sums[r][f][0] += part[r] * scale;
    }
  return K;
}
#else
INLINE int along(const struct args *with, const float *a, const number *b, int j, int rows,
                 int fold, vec sums[FEW][FOLD][TWICE]) {
  int k = 0;
  for (; k + TWICE * LANES <= K; k += TWICE * LANES)
    UNROLL for (int t = 0; t < TWICE; t++)
      UNROLL for (int f = 0; f < fold; f++) {
        __builtin_prefetch(b + (long)(f + AHEAD) * K + k + t * LANES);
        vec w = numbers(b + (long)f * K + k + t * LANES);
        UNROLL for (int r = 0; r < rows; r++)
          sums[r][f][t] += w * load(a + (long)r * K + k + t * LANES);
      }
  return k;
}
#endif

// `rows` of a from i on times `fold` rows of b from j on; both are constants.
INLINE void tile(const struct args *with, int i, int j, int rows, int fold) {
  vec sums[FEW][FOLD][TWICE];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int f = 0; f < fold; f++)
      UNROLL for (int t = 0; t < TWICE; t++) sums[r][f][t] = splat(0);
  const float *a = with->a + (long)i * K;
  const number *b = with->b + (long)j * K;
  int k = along(with, a, b, j, rows, fold, sums);
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int f = 0; f < fold; f++) {
      float total = sum(TWICE == 2 ? sums[r][f][0] + sums[r][f][TWICE - 1] : sums[r][f][0]);
      for (int rest = k; rest < K; rest++)
        total += a[(long)r * K + rest] * number_at(b + (long)f * K + rest);
      with->y[(long)(i + r) * N + j + f] = total;
    }
}

// What is left to do with sums once they are there.
INLINE void finish(const struct args *with, int i, int j, int end) {
  float *y = with->y + (long)i * N;
  for (; j + LANES <= end; j += LANES) store(y + j, FINISH(load(y + j), weights, j));
  for (; j < end; j++) y[j] = FINISH(splat(y[j]), everywhere, j)[0];
}

ALONE static void part(const void *given, int chunk) {
  const struct args *with = given;
  int start = chunk * RUN, end = LEAST(start + RUN, N), j = start;
  for (; j + FOLD <= end; j += FOLD) {
    int i = 0;
    for (; i + FEW <= M; i += FEW) tile(with, i, j, FEW, FOLD);
    for (; i < M; i++) tile(with, i, j, 1, FOLD);
  }
  for (; j < end; j++)
    for (int i = 0; i < M; i++) tile(with, i, j, 1, 1);
  for (int i = 0; i < M; i++) finish(with, i, start, end);
}

void KERNEL(PARAMETERS, struct team *team) {
  struct args with = {ARGUMENTS};
  team_run(team, part, &with, (N + RUN - 1) / RUN);
}
