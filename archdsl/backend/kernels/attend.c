// Attention of many queries: out [B, T, H, VALUE].
//
// A chunk is QUERIES positions of one head. For BLOCK keys at a time, turned over into panels,
// scores are made by register tiles of TALL queries, then the sums of values go on with them:
// one pass over the keys that any of the queries sees (Dao et al. 2022, "FlashAttention").
// Queries that T has not are made of the last one, and thrown away.

// At most 12 tiles of queries, as many for all chunks as can be.
#define DIVIDED(count, parts) (((count) + (parts) - 1) / (parts))
#define QUERIES (DIVIDED(DIVIDED(T, DIVIDED(T, 12 * TALL)), TALL) * TALL)
#define ACROSS PANELS(VALUE)
// At most 256 keys, which all blocks are, or nearly; of wide heads 128. So the tiles of one chunk,
// which lie on the stack, take less than 1 MiB for heads of up to 512 features.
#define MOST_KEYS (SIZE + VALUE > 640 ? 128 : 256)
#define BLOCK PANELS(DIVIDED(ROOM, DIVIDED(ROOM, MOST_KEYS)))
#define DOWN DIVIDED(T, QUERIES)

struct tiles {
  float keys[SIZE * BLOCK], values[BLOCK * ACROSS];
  float scores[QUERIES * BLOCK], sums[QUERIES * ACROSS], most[QUERIES], total[QUERIES];
} __attribute__((aligned(64)));

// One row's scores of `across` keys made exponentials, those it may not see 0.
INLINE void shares(struct tiles *tiles, int r, int across, int begin, int end) {
  float *scores = tiles->scores + r * BLOCK, *sums = tiles->sums + r * ACROSS;
  for (int s = 0; s < MIN(begin, across); s++) scores[s] = NOTHING;
  for (int s = MAX(end, 0); s < across; s++) scores[s] = NOTHING;
  vec high = splat(NOTHING);
  for (int s = 0; s < across; s += LANES) high = larger(high, load(scores + s));
  float top = MAX(tiles->most[r], largest(high) * SCALE);
  if (top == NOTHING) {  // it has seen nothing yet
    for (int s = 0; s < across; s++) scores[s] = 0;
    return;
  }
  float again = exponential(splat(tiles->most[r] - top))[0];
  vec added = splat(0);
  for (int s = 0; s < across; s += LANES) {
    vec e = exponential_below(load(scores + s) * SCALE - top);
    store(scores + s, e);
    added += e;
  }
  tiles->total[r] = tiles->total[r] * again + sum(added);
  tiles->most[r] = top;
  for (int d = 0; d < ACROSS; d += LANES) store(sums + d, load(sums + d) * again);
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  struct tiles tiles;
  // The last queries have the most keys, and come first.
  int t0 = (DOWN - 1 - tile / (B * H)) * QUERIES, b = tile / H % B, head = tile % H;
  int shared = head / (H / HEADS), count = MIN(QUERIES, T - t0);
  int tall = (count + TALL - 1) / TALL * TALL;
  const float *queries[QUERIES];
  for (int r = 0; r < tall; r++) {
    int t = t0 + MIN(r, count - 1);
    queries[r] = args->q + row(b, t, head, SIZE);
    tiles.most[r] = NOTHING, tiles.total[r] = 0;
  }
  zeros(tiles.sums, tall * ACROSS);
  int begin = first(args, b, t0), end = last(args, b, t0 + count - 1) + 1;
  for (int s = begin; s < end; s += BLOCK) {
    int keys = MIN(BLOCK, end - s), across = PANELS(keys);
    turned(tiles.keys, BLOCK, args->k, SIZE, b, shared, s, keys);
    straight(tiles.values, args->v, VALUE, b, shared, s, keys);
    zeros(tiles.scores, tall * BLOCK);
    for (int r = 0; r < tall; r += TALL)
      for (int c = 0; c < across; c += PANEL)
        multiply(tiles.scores + r * BLOCK + c, BLOCK, queries + r, 1, tiles.keys + c, BLOCK, SIZE);
    for (int r = 0; r < tall; r++) {
      int t = t0 + MIN(r, count - 1);
      shares(&tiles, r, across, first(args, b, t) - s, last(args, b, t) + 1 - s);
    }
    product(tiles.sums, ACROSS, tiles.scores, BLOCK, 1, tiles.values, ACROSS, tall, ACROSS, keys);
  }
  for (int r = 0; r < count; r++) {
    float *out = args->out + row(b, t0 + r, head, VALUE), by = 1 / tiles.total[r];
    note(args, b, t0 + r, head, tiles.most[r], tiles.total[r]);
    for (int d = 0; d < VALUE; d++) out[d] = tiles.sums[r * ACROSS + d] * by;
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, DOWN * B * H);
}
