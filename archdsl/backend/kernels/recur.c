// The linear recurrence s_t = decay_t * s_{t-1} + a_t (b_t s_{t-1}) + k_t v_t^T, read as q_t s_t, or
// BEFORE the update as q_t s_{t-1}.
//
// y [B, T, H, VALUE] and the last state `end` [B, H, SIZE, VALUE]. H / GROUPS heads share a head of
// q and k [B, T, GROUPS, SIZE]. The decay is absent, [B, T, H] (DECAY 1), [B, T, H, SIZE] (2) or
// [B, T, H, SIZE, VALUE] (3). The columns of a state are independent: a tile is COLUMNS of them, for
// all positions of one head. Its part of the state stays in the cache, and each number of it is
// loaded once for each position.

#define VECTORS 4
#define COLUMNS (VECTORS * LANES)
#define BLOCKS ((VALUE + COLUMNS - 1) / COLUMNS)
#define EACH_VECTOR UNROLL for (int w = 0; w < VECTORS; w++)

struct args {
  float *y, *end;
  const float *q, *k, *v, *decay, *a, *b, *start;
};

// Copies `count` of COLUMNS numbers, and zeros.
INLINE void load_columns(vec to[VECTORS], const float *from, int count) {
  if (count == COLUMNS) {
    EACH_VECTOR to[w] = load(from + w * LANES);
    return;
  }
  float whole[COLUMNS];
  for (int i = 0; i < COLUMNS; i++) whole[i] = i < count ? from[i] : 0;
  EACH_VECTOR to[w] = load(whole + w * LANES);
}

INLINE void store_columns(float *to, const vec from[VECTORS], int count) {
  if (count == COLUMNS) {
    EACH_VECTOR store(to + w * LANES, from[w]);
    return;
  }
  float whole[COLUMNS];
  EACH_VECTOR store(whole + w * LANES, from[w]);
  for (int i = 0; i < count; i++) to[i] = whole[i];
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  int b = tile / (H * BLOCKS), h = tile / BLOCKS % H, column = tile % BLOCKS * COLUMNS;
  int count = MIN(COLUMNS, VALUE - column);
  vec s[SIZE][VECTORS], correction[VECTORS], next[VECTORS];
  long state = ((long)b * H + h) * SIZE * VALUE + column;
  EACH_VECTOR next[w] = splat(0);
  for (int i = 0; i < SIZE; i++) {
    EACH_VECTOR s[i][w] = splat(0);
    if (args->start) load_columns(s[i], args->start + state + (long)i * VALUE, count);
    if (DELTA) EACH_VECTOR next[w] += args->b[((long)b * T * H + h) * SIZE + i] * s[i][w];
  }
  for (int t = 0; t < T; t++) {
    long head = ((long)b * T + t) * H + h;
    long group = (((long)b * T + t) * GROUPS + h / (H / GROUPS)) * SIZE;
    const float *q = args->q + group, *k = args->k + group;
    const float *a = DELTA ? args->a + head * SIZE : 0;
    const float *later = DELTA ? args->b + (head + (t + 1 < T ? H : 0)) * SIZE : 0;
    vec v[VECTORS], y[VECTORS], decay[VECTORS];
    load_columns(v, args->v + head * VALUE + column, count);
    EACH_VECTOR y[w] = splat(0), decay[w] = splat(DECAY == 1 ? args->decay[head] : 1);
    if (DELTA) EACH_VECTOR correction[w] = next[w], next[w] = splat(0);
    for (int i = 0; i < SIZE; i++) {
      if (DECAY == 2) EACH_VECTOR decay[w] = splat(args->decay[head * SIZE + i]);
      if (DECAY == 3)
        load_columns(decay, args->decay + (head * SIZE + i) * VALUE + column, count);
      EACH_VECTOR {
        vec old = s[i][w], new = (DECAY ? decay[w] * old : old) + k[i] * v[w];
        if (DELTA) new += a[i] * correction[w], next[w] += later[i] * new;
        y[w] += q[i] * (BEFORE ? old : new);
        s[i][w] = new;
      }
    }
    store_columns(args->y + head * VALUE + column, y, count);
  }
  for (int i = 0; i < SIZE; i++)
    store_columns(args->end + state + (long)i * VALUE, s[i], count);
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, B * H * BLOCKS);
}
