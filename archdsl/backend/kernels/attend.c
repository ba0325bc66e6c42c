// Attention of many queries: out [B, T, H, VALUE] = softmax(q k^T) v.
//
// A tile is QUERIES queries of one head. It goes once over the keys that any of the queries sees,
// BLOCK keys at a time: packs them transposed, computes the scores in register tiles of MR queries,
// and adds to the sums of the values (Dao et al. 2022, "FlashAttention"). If T is not a multiple of
// QUERIES, the last query is repeated, and the results of the copies are dropped.

// At most 12 register tiles of queries, and tiles of nearly equal size.
#define DIVIDE_UP(count, parts) (((count) + (parts) - 1) / (parts))
#define QUERIES (DIVIDE_UP(DIVIDE_UP(T, DIVIDE_UP(T, 12 * MR)), MR) * MR)
#define COLUMNS PADDED(VALUE)
// At most 256 keys, or 128 for wide heads, in blocks of nearly equal size. The buffers of a tile
// are on the stack, and take less than 1 MiB for heads of up to 576 features.
#define MAX_KEYS (SIZE + VALUE > 640 ? 128 : 256)
#define BLOCK PADDED(DIVIDE_UP(CAPACITY, DIVIDE_UP(CAPACITY, MAX_KEYS)))
#define QUERY_BLOCKS DIVIDE_UP(T, QUERIES)

struct buffers {
  float keys[SIZE * BLOCK], values[BLOCK * COLUMNS];
  float scores[QUERIES * BLOCK], sums[QUERIES * COLUMNS], top[QUERIES], total[QUERIES];
} __attribute__((aligned(64)));

// Replaces the scores of query t, in row r, for the keys from s on by their exponentials, and by 0
// for those that it does not see. The sums so far are rescaled to the new largest score.
INLINE void exponentiate(const struct args *args, struct buffers *buffers, int r, int columns,
                         int b, int t, int s0) {
  float *scores = buffers->scores + r * BLOCK, *sums = buffers->sums + r * COLUMNS;
  int begin = first_key(args, b, t) - s0, end = last_key(args, b, t) + 1 - s0;
  cap(scores, columns);
  hide(args, scores, b, t, s0, columns, MINUS_INFINITY);
  for (int s = 0; s < MIN(begin, columns); s++) scores[s] = MINUS_INFINITY;
  for (int s = MAX(end, 0); s < columns; s++) scores[s] = MINUS_INFINITY;
  vec high = splat(MINUS_INFINITY);
  for (int s = 0; s < columns; s += LANES) high = maximum(high, load(scores + s));
  float top = MAX(buffers->top[r], max_lane(high) * FACTOR);
  if (top == MINUS_INFINITY) {  // no key was visible so far
    for (int s = 0; s < columns; s++) scores[s] = 0;
    return;
  }
  float rescale = exponential(splat(buffers->top[r] - top))[0];
  vec added = splat(0);
  for (int s = 0; s < columns; s += LANES) {
    vec e = exponential_below(load(scores + s) * FACTOR - top);
    store(scores + s, e);
    added += e;
  }
  buffers->total[r] = buffers->total[r] * rescale + sum(added);
  buffers->top[r] = top;
  for (int d = 0; d < COLUMNS; d += LANES) store(sums + d, load(sums + d) * rescale);
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  struct buffers buffers;
  // The last queries see the most keys, so they are computed first.
  int t0 = (QUERY_BLOCKS - 1 - tile / (B * H)) * QUERIES, b = tile / H % B, head = tile % H;
  int kv_head = head / (H / HEADS), count = MIN(QUERIES, T - t0);
  int rows = (count + MR - 1) / MR * MR;
  const float *queries[QUERIES];
  for (int r = 0; r < rows; r++) {
    int t = t0 + MIN(r, count - 1);
    queries[r] = args->q + query_offset(b, t, head, SIZE);
    buffers.top[r] = sink_score(args, b, head);
    buffers.total[r] = args->sink ? 1 : 0;
  }
  set_zero(buffers.sums, rows * COLUMNS);
  int begin = first_key(args, b, t0), end = last_key(args, b, t0 + count - 1) + 1;
  for (int s = begin; s < end; s += BLOCK) {
    int keys = MIN(BLOCK, end - s), columns = PADDED(keys);
    if (!sees_some(args, b, t0, t0 + count - 1, s, keys)) continue;
    pack_transposed(buffers.keys, BLOCK, args->k, SIZE, b, kv_head, s, keys);
    pack(buffers.values, args->v, VALUE, b, kv_head, s, keys);
    set_zero(buffers.scores, rows * BLOCK);
    for (int r = 0; r < rows; r += MR)
      for (int c = 0; c < columns; c += NR)
        multiply_tile(buffers.scores + r * BLOCK + c, BLOCK, queries + r, 1, buffers.keys + c,
                      BLOCK, SIZE);
    for (int r = 0; r < rows; r++)
      exponentiate(args, &buffers, r, columns, b, t0 + MIN(r, count - 1), s);
    multiply(buffers.sums, COLUMNS, buffers.scores, BLOCK, 1, buffers.values, COLUMNS, rows,
             COLUMNS, keys);
  }
  for (int r = 0; r < count; r++) {
    float *out = args->out + query_offset(b, t0 + r, head, VALUE);
    float by = buffers.total[r] ? 1 / buffers.total[r] : 0;  // 0 for a query that sees nothing
    save_totals(args, b, t0 + r, head, buffers.top[r], buffers.total[r]);
    for (int d = 0; d < VALUE; d++) out[d] = buffers.sums[r * COLUMNS + d] * by;
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, QUERY_BLOCKS * B * H);
}
