// Attention of few queries, one at a time: out [B, T, H, VALUE] = softmax(q k^T) v.
//
// A tile is a head of a row. It goes once over the keys, BLOCK at a time: computes their scores,
// then adds to the sum of the values. The largest score and the sum of exponentials so far are kept
// beside it (Milakov and Gimelshein 2018, "Online normalizer calculation").

#define BLOCK 64
#define VECTORS ((VALUE + LANES - 1) / LANES)

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  int b = tile / H, head = tile % H, kv_head = head / (H / HEADS);
  for (int t = 0; t < T; t++) {
    const float *q = args->q + query_offset(b, t, head, SIZE);
    float *out = args->out + query_offset(b, t, head, VALUE);
    float top = sink_score(args, b, head), total = args->sink ? 1 : 0;
    float scores[BLOCK];
    vec sums[VECTORS];
    for (int p = 0; p < VECTORS; p++) sums[p] = splat(0);
    int begin = first_key(args, b, t), end = last_key(args, b, t) + 1;
    for (int s0 = begin; s0 < end; s0 += BLOCK) {
      int count = MIN(BLOCK, end - s0);
      if (!sees_some(args, b, t, t, s0, count)) continue;
      float new_top = top;
      for (int s = 0; s < count; s++) {
        const weight *k = args->k + key_offset(b, s0 + s, kv_head, SIZE);
        vec dot = splat(0);
        int d = 0;
        UNROLL for (; d + LANES <= SIZE; d += LANES) dot += load(q + d) * load_weights(k + d);
        float score = sum(dot);
        for (; d < SIZE; d++) score += q[d] * read_weight(k + d);
        scores[s] = score;
      }
      for (int s = count; s < BLOCK; s++) scores[s] = 0;
      cap(scores, BLOCK);
      for (int s = 0; s < count; s++) scores[s] *= FACTOR;
      hide(args, scores, b, t, s0, count, MINUS_INFINITY);
      for (int s = 0; s < count; s++) new_top = MAX(new_top, scores[s]);
      if (new_top == MINUS_INFINITY) continue;  // no key was visible so far
      for (int s = count; s < BLOCK; s++) scores[s] = MINUS_INFINITY;
      float rescale = exponential(splat(top - new_top))[0];
      vec added = splat(0);
      for (int s = 0; s < BLOCK; s += LANES) {
        vec e = exponential_below(load(scores + s) - new_top);
        store(scores + s, e);
        added += e;
      }
      total = total * rescale + sum(added);
      top = new_top;
      for (int p = 0; p < VECTORS; p++) sums[p] *= rescale;
      for (int s = 0; s < count; s++) {
        const weight *v = args->v + key_offset(b, s0 + s, kv_head, VALUE);
        UNROLL for (int p = 0; p < VALUE / LANES; p++)
          sums[p] += scores[s] * load_weights(v + p * LANES);
        if (VALUE % LANES)
          for (int d = VALUE / LANES * LANES; d < VALUE; d++)
            sums[VECTORS - 1][d % LANES] += scores[s] * read_weight(v + d);
      }
    }
    save_totals(args, b, t, head, top, total);
    float by = total ? 1 / total : 0;  // 0 for a query that sees nothing
    for (int d = 0; d < VALUE; d++) out[d] = sums[d / LANES][d % LANES] * by;
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, B * H);
}
