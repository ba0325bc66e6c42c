// Attention of few queries, one by one: out [B, T, H, VALUE].
//
// A chunk is a head of a row. Scores of BLOCK keys are made, then the sum of values goes on with
// them: softmax(q k^T) v in one pass over the keys, the largest score so far and the sum of
// exponentials kept beside (Milakov and Gimelshein 2018, "Online normalizer calculation").

#define BLOCK 64
#define PARTS ((VALUE + LANES - 1) / LANES)

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  int b = tile / H, head = tile % H, shared = head / (H / HEADS);
  for (int t = 0; t < T; t++) {
    const float *q = args->q + row(b, t, head, SIZE);
    float *out = args->out + row(b, t, head, VALUE);
    float most = NOTHING, total = 0, scores[BLOCK];
    vec sums[PARTS];
    for (int p = 0; p < PARTS; p++) sums[p] = splat(0);
    int begin = first(args, b, t), end = last(args, b, t) + 1;
    for (int s0 = begin; s0 < end; s0 += BLOCK) {
      int count = MIN(BLOCK, end - s0);
      float top = most;
      for (int s = 0; s < count; s++) {
        const weight *k = args->k + place(b, s0 + s, shared, SIZE);
        vec dot = splat(0);
        int d = 0;
        UNROLL for (; d + LANES <= SIZE; d += LANES) dot += load(q + d) * weights(k + d);
        float score = sum(dot);
        for (; d < SIZE; d++) score += q[d] * one(k + d);
        scores[s] = score * SCALE;
        top = MAX(top, scores[s]);
      }
      for (int s = count; s < BLOCK; s++) scores[s] = NOTHING;
      float again = exponential(splat(most - top))[0];
      vec added = splat(0);
      for (int s = 0; s < BLOCK; s += LANES) {
        vec e = exponential_below(load(scores + s) - top);
        store(scores + s, e);
        added += e;
      }
      total = total * again + sum(added);
      most = top;
      for (int p = 0; p < PARTS; p++) sums[p] *= again;
      for (int s = 0; s < count; s++) {
        const weight *v = args->v + place(b, s0 + s, shared, VALUE);
        UNROLL for (int p = 0; p < VALUE / LANES; p++)
          sums[p] += scores[s] * weights(v + p * LANES);
        if (VALUE % LANES)
          for (int d = VALUE / LANES * LANES; d < VALUE; d++)
            sums[PARTS - 1][d % LANES] += scores[s] * one(v + d);
      }
    }
    note(args, b, t, head, most, total);
    for (int d = 0; d < VALUE; d++) out[d] = sums[d / LANES][d % LANES] / total;
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, B * H);
}
