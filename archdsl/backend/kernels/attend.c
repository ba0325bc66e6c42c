// Attention of many queries: out [B, T, H, VALUE].
//
// A chunk is QUERIES positions of one head. For BLOCK keys at a time, turned over into panels,
// scores are made by register tiles of TALL queries, then the sums of values go on with them:
// one pass over the keys that any of the queries sees (Dao et al. 2022, "FlashAttention").
// Queries that T has not are made of the last one, and thrown away.

#define PANEL (WIDE * LANES)
#define TALL 6
#define QUERIES (8 * TALL)
#define BLOCK 64
#define ACROSS ((VALUE + PANEL - 1) / PANEL * PANEL)
#define DOWN ((T + QUERIES - 1) / QUERIES)

struct tiles {
  float keys[SIZE * BLOCK], values[BLOCK * ACROSS];
  float scores[QUERIES * BLOCK], sums[QUERIES * ACROSS], most[QUERIES], total[QUERIES];
} __attribute__((aligned(64)));

// Keys and values of the columns from s on, as float32, the keys turned over: [SIZE, BLOCK].
INLINE void read(const struct args *with, struct tiles *tiles, int b, int head, int s, int count) {
  for (int c = 0; c < BLOCK; c += LANES) {
    const weight *rows[LANES];
    for (int i = 0; i < LANES; i++)
      rows[i] = with->k + place(b, s + LEAST(c + i, count - 1), head, SIZE);
    int d = 0;
    for (; d + LANES <= SIZE; d += LANES) {
      vec square[LANES];
      UNROLL for (int i = 0; i < LANES; i++) square[i] = weights(rows[i] + d);
      turn(square);
      UNROLL for (int i = 0; i < LANES; i++) store(tiles->keys + (d + i) * BLOCK + c, square[i]);
    }
    for (; d < SIZE; d++)
      for (int i = 0; i < LANES; i++) tiles->keys[d * BLOCK + c + i] = one(rows[i] + d);
  }
  for (int c = 0; c < BLOCK; c++) {
    const weight *row = with->v + place(b, s + LEAST(c, count - 1), head, VALUE);
    int d = 0;
    for (; d + LANES <= VALUE; d += LANES) store(tiles->values + c * ACROSS + d, weights(row + d));
    for (; d < VALUE; d++) tiles->values[c * ACROSS + d] = one(row + d);
    for (; d < ACROSS; d++) tiles->values[c * ACROSS + d] = 0;
  }
}

// to [TALL, PANEL] += a [TALL, depth] b [depth, PANEL]; the numbers are how far rows stand apart.
INLINE void multiply(float *to, int to_row, const float *const a[TALL], const float *b, int b_row,
                     int depth) {
  vec sums[TALL][WIDE];
  UNROLL for (int r = 0; r < TALL; r++)
    UNROLL for (int w = 0; w < WIDE; w++) sums[r][w] = load(to + r * to_row + w * LANES);
  for (int k = 0; k < depth; k++)
    UNROLL for (int r = 0; r < TALL; r++)
      UNROLL for (int w = 0; w < WIDE; w++)
        sums[r][w] += a[r][k] * load(b + k * b_row + w * LANES);
  UNROLL for (int r = 0; r < TALL; r++)
    UNROLL for (int w = 0; w < WIDE; w++) store(to + r * to_row + w * LANES, sums[r][w]);
}

// One row's scores made exponentials, those it may not see 0.
INLINE void shares(struct tiles *tiles, int r, int begin, int end) {
  float *scores = tiles->scores + r * BLOCK, *sums = tiles->sums + r * ACROSS;
  for (int s = 0; s < LEAST(begin, BLOCK); s++) scores[s] = NOTHING;
  for (int s = MOST(end, 0); s < BLOCK; s++) scores[s] = NOTHING;
  vec high = splat(NOTHING);
  for (int s = 0; s < BLOCK; s += LANES) high = larger(high, load(scores + s));
  float top = MOST(tiles->most[r], largest(high) * SCALE);
  if (top == NOTHING) {  // it has seen nothing yet
    for (int s = 0; s < BLOCK; s++) scores[s] = 0;
    return;
  }
  float again = exponential(splat(tiles->most[r] - top))[0];
  vec added = splat(0);
  for (int s = 0; s < BLOCK; s += LANES) {
    vec e = exponential(load(scores + s) * SCALE - top);
    store(scores + s, e);
    added += e;
  }
  tiles->total[r] = tiles->total[r] * again + sum(added);
  tiles->most[r] = top;
  for (int d = 0; d < ACROSS; d += LANES) store(sums + d, load(sums + d) * again);
}

ALONE static void part(const void *given, int chunk) {
  const struct args *with = given;
  struct tiles tiles;
  // The last queries have the most keys, and come first.
  int t0 = (DOWN - 1 - chunk / (B * H)) * QUERIES, b = chunk / H % B, head = chunk % H;
  int shared = head / (H / HEADS), count = LEAST(QUERIES, T - t0);
  int tall = (count + TALL - 1) / TALL * TALL;
  const float *queries[QUERIES];
  for (int r = 0; r < tall; r++) {
    int t = t0 + LEAST(r, count - 1);
    queries[r] = with->q + (((long)b * T + t) * H + head) * SIZE;
    tiles.most[r] = NOTHING, tiles.total[r] = 0;
  }
  for (int i = 0; i < tall * ACROSS; i++) tiles.sums[i] = 0;
  int begin = first(with, b, t0), end = last(with, b, t0 + count - 1) + 1;
  for (int s = begin; s < end; s += BLOCK) {
    read(with, &tiles, b, shared, s, LEAST(BLOCK, end - s));
    for (int i = 0; i < tall * BLOCK; i++) tiles.scores[i] = 0;
    for (int r = 0; r < tall; r += TALL)
      for (int c = 0; c < BLOCK; c += PANEL)
        multiply(tiles.scores + r * BLOCK + c, BLOCK, queries + r, tiles.keys + c, BLOCK, SIZE);
    for (int r = 0; r < tall; r++) {
      int t = t0 + LEAST(r, count - 1);
      shares(&tiles, r, first(with, b, t) - s, last(with, b, t) + 1 - s);
    }
    for (int r = 0; r < tall; r += TALL) {
      const float *rows[TALL];
      UNROLL for (int i = 0; i < TALL; i++) rows[i] = tiles.scores + (r + i) * BLOCK;
      for (int d = 0; d < ACROSS; d += PANEL)
        multiply(tiles.sums + r * ACROSS + d, ACROSS, rows, tiles.values + d, ACROSS, BLOCK);
    }
  }
  for (int r = 0; r < count; r++) {
    float *out = with->out + (((long)b * T + t0 + r) * H + head) * VALUE, by = 1 / tiles.total[r];
    for (int d = 0; d < VALUE; d++) out[d] = tiles.sums[r * ACROSS + d] * by;
  }
}

void KERNEL(PARAMETERS, struct team *team) {
  struct args with = {ARGUMENTS};
  team_run(team, part, &with, DOWN * B * H);
}
