// The gradients of attention, in float32: dq as q, dk as k and dv as v lie, of dout as out.
//
// A chunk is a head of keys of a row, with all queries that share it. For BLOCK keys the queries
// that see any of them pass by, QUERIES at a time, and their shares are made once more (Dao et
// al. 2022, "FlashAttention"). A score's gradient is p (dp - dout out), of its share p and that
// one's gradient dp = dout v. Queries that T has not are zeros.

#define BLOCK 64
#define QUERIES (8 * TALL)
#define DEEP PANELS(SIZE)
#define ACROSS PANELS(VALUE)
#define RISE ((BLOCK + TALL - 1) / TALL * TALL)  // BLOCK keys as rows of tiles

// On the stack; less than 1 MiB for heads of up to 512 features.
struct tiles {
  float keys[BLOCK * DEEP], keys_turned[SIZE * BLOCK], values_turned[VALUE * BLOCK];
  float q[QUERIES * DEEP], dout[QUERIES * ACROSS];
  float shares[QUERIES * RISE], dscores[QUERIES * RISE];
  float dq[QUERIES * DEEP], dk[RISE * DEEP], dv[RISE * ACROSS];
} __attribute__((aligned(64)));

// A query's row of `size` numbers in a row of whole panels, zeros where there is none.
INLINE void copy(float *to, const float *from, int size, int there) {
  for (int d = 0; d < size; d++) to[d] = there ? from[d] : 0;
  for (int d = size; d < PANELS(size); d++) to[d] = 0;
}

INLINE float dot(const float *a, const float *b, int size) {
  vec total = splat(0);
  int d = 0;
  for (; d + LANES <= size; d += LANES) total += load(a + d) * load(b + d);
  float found = sum(total);
  for (; d < size; d++) found += a[d] * b[d];
  return found;
}

// One row's scores made shares, and the gradients of shares those of scores; 0 where it sees
// nothing, from `end` on and before `begin`.
INLINE void back(const struct args *args, struct tiles *tiles, int r, long at, int across,
                 int begin, int end) {
  float *shares = tiles->shares + r * RISE, *dscores = tiles->dscores + r * RISE;
  float most = args->given_totals[at * 2], by = 1 / args->given_totals[at * 2 + 1];
  float mean = dot(args->given + at * VALUE, tiles->dout + r * ACROSS, VALUE);
  for (int s = 0; s < across; s += LANES) {
    vec share = exponential(load(shares + s) * SCALE - most) * by;
    store(shares + s, share);
    store(dscores + s, share * (load(dscores + s) - mean) * SCALE);
  }
  for (int s = 0; s < MIN(begin, across); s++) shares[s] = dscores[s] = 0;
  for (int s = MAX(end, 0); s < RISE; s++) shares[s] = dscores[s] = 0;
}

// What `count` queries of a head from t0 on add to the gradients, by `keys` keys from s on.
INLINE void queries(const struct args *args, struct tiles *tiles, int b, int head, int t0,
                    int count, int s, int keys) {
  int across = PANELS(keys), deep = (keys + TALL - 1) / TALL * TALL;
  int tall = (count + TALL - 1) / TALL * TALL;
  for (int r = 0; r < tall; r++) {
    long at = row(b, MIN(t0 + r, T - 1), head, 1);
    copy(tiles->q + r * DEEP, args->q + at * SIZE, SIZE, r < count);
    copy(tiles->dout + r * ACROSS, args->dout + at * VALUE, VALUE, r < count);
  }
  zeros(tiles->shares, tall * RISE);
  zeros(tiles->dscores, tall * RISE);
  zeros(tiles->dq, tall * DEEP);
  product(tiles->shares, RISE, tiles->q, DEEP, 1, tiles->keys_turned, BLOCK, tall, across, SIZE);
  product(tiles->dscores, RISE, tiles->dout, ACROSS, 1, tiles->values_turned, BLOCK, tall, across,
          VALUE);
  for (int r = 0; r < tall; r++) {
    int t = MIN(t0 + r, T - 1), end = r < count ? last(args, b, t) + 1 - s : 0;
    back(args, tiles, r, row(b, t, head, 1), across, first(args, b, t) - s, end);
  }
  product(tiles->dv, ACROSS, tiles->shares, 1, RISE, tiles->dout, ACROSS, deep, ACROSS, tall);
  product(tiles->dk, DEEP, tiles->dscores, 1, RISE, tiles->q, DEEP, deep, DEEP, tall);
  product(tiles->dq, DEEP, tiles->dscores, RISE, 1, tiles->keys, DEEP, tall, DEEP, keys);
  for (int r = 0; r < count; r++) {
    float *dq = args->dq + row(b, t0 + r, head, SIZE);
    for (int d = 0; d < SIZE; d++) dq[d] += tiles->dq[r * DEEP + d];
  }
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  struct tiles tiles;
  int b = tile / HEADS, shared = tile % HEADS, group = H / HEADS;
  int begin = shared * group, end = begin + group;
  for (int t = 0; t < T; t++) zeros(args->dq + row(b, t, begin, SIZE), group * SIZE);
  for (int s = 0; s < ROOM; s += BLOCK) {
    int keys = MIN(BLOCK, ROOM - s);
    turned(tiles.keys_turned, BLOCK, args->k, SIZE, b, shared, s, keys);
    turned(tiles.values_turned, BLOCK, args->v, VALUE, b, shared, s, keys);
    straight(tiles.keys, args->k, SIZE, b, shared, s, keys);
    zeros(tiles.dk, RISE * DEEP);
    zeros(tiles.dv, RISE * ACROSS);
    for (int t = CAUSAL ? s : 0; t < T; t += QUERIES) {
      int count = MIN(QUERIES, T - t);
      if (first(args, b, t) >= s + keys || last(args, b, t + count - 1) < s) continue;
      for (int head = begin; head < end; head++) queries(args, &tiles, b, head, t, count, s, keys);
    }
    for (int c = 0; c < keys; c++) {
      float *dk = args->dk + place(b, s + c, shared, SIZE);
      float *dv = args->dv + place(b, s + c, shared, VALUE);
      for (int d = 0; d < SIZE; d++) dk[d] = tiles.dk[c * DEEP + d];
      for (int d = 0; d < VALUE; d++) dv[d] = tiles.dv[c * ACROSS + d];
    }
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, B * HEADS);
}
