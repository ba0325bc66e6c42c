// The gradients of attention in float32: dq, dk and dv with the layouts of q, k and v, from dout.
//
// A tile is a key head of a row, with all queries that share it, so no two tiles write to the same
// gradient. For BLOCK keys it goes over the queries that see any of them, QUERIES at a time, and
// computes their probabilities again (Dao et al. 2022, "FlashAttention"). The gradient of a score
// is p (dp - dout out), where p is the probability of the key and dp = dout v its gradient. If T is
// not a multiple of QUERIES, the missing queries are zeros.

#define BLOCK 64
#define QUERIES ((SIZE + VALUE > 1024 ? 4 : 8) * MR)
#define KEY_COLUMNS PADDED(SIZE)
#define VALUE_COLUMNS PADDED(VALUE)
#define KEY_ROWS ((BLOCK + MR - 1) / MR * MR)  // BLOCK keys as rows of register tiles

// On the stack: less than 1 MiB for heads of up to 576 features.
struct buffers {
  float keys[BLOCK * KEY_COLUMNS], keys_transposed[SIZE * BLOCK], values_transposed[VALUE * BLOCK];
  float q[QUERIES * KEY_COLUMNS], dout[QUERIES * VALUE_COLUMNS];
  float probabilities[QUERIES * KEY_ROWS], dscores[QUERIES * KEY_ROWS];
  float dq[QUERIES * KEY_COLUMNS], dk[KEY_ROWS * KEY_COLUMNS], dv[KEY_ROWS * VALUE_COLUMNS];
} __attribute__((aligned(64)));

// Copies a row of `size` numbers, padded with zeros to PADDED(size); all zeros if not `valid`.
INLINE void copy_padded(float *to, const float *from, int size, int valid) {
  for (int d = 0; d < size; d++) to[d] = valid ? from[d] : 0;
  for (int d = size; d < PADDED(size); d++) to[d] = 0;
}

INLINE float dot(const float *a, const float *b, int size) {
  vec total = splat(0);
  int d = 0;
  for (; d + LANES <= size; d += LANES) total += load(a + d) * load(b + d);
  float found = sum(total);
  for (; d < size; d++) found += a[d] * b[d];
  return found;
}

// Turns the scores of query t, in row r, into probabilities, and their gradients into those of the
// scores; both are 0 for keys that it does not see. The keys are those from s0 on.
INLINE void backward_row(const struct args *args, struct buffers *buffers, int r, int b, int head,
                         int t, int valid, int s0, int columns) {
  long at = query_offset(b, t, head, 1);
  float *probabilities = buffers->probabilities + r * KEY_ROWS;
  float *dscores = buffers->dscores + r * KEY_ROWS;
  float top = args->forward_totals[at * 2], by = 1 / args->forward_totals[at * 2 + 1];
  float mean = dot(args->forward_out + at * VALUE, buffers->dout + r * VALUE_COLUMNS, VALUE);
  int begin = first_key(args, b, t) - s0, end = valid ? last_key(args, b, t) + 1 - s0 : 0;
  cap(probabilities, columns);
  for (int s = 0; s < columns; s += LANES) {
    vec score = load(probabilities + s) * FACTOR, p = exponential(score - top) * by;
    vec slope = splat(SCALE);
    if (CAPPED) slope = (1 - score * score * (1 / (SOFTCAP * SOFTCAP))) * SCALE;
    store(probabilities + s, p);
    store(dscores + s, p * (load(dscores + s) - mean) * slope);
  }
  hide(args, probabilities, b, t, s0, columns, 0);
  hide(args, dscores, b, t, s0, columns, 0);
  for (int s = 0; s < MIN(begin, columns); s++) probabilities[s] = dscores[s] = 0;
  for (int s = MAX(end, 0); s < KEY_ROWS; s++) probabilities[s] = dscores[s] = 0;
}

// Adds the gradients from `count` queries of a head, t0 onwards, and `keys` keys, s onwards.
INLINE void add_queries(const struct args *args, struct buffers *buffers, int b, int head, int t0,
                        int count, int s, int keys) {
  int columns = PADDED(keys), key_rows = (keys + MR - 1) / MR * MR;
  int rows = (count + MR - 1) / MR * MR;
  for (int r = 0; r < rows; r++) {
    long at = query_offset(b, MIN(t0 + r, T - 1), head, 1);
    copy_padded(buffers->q + r * KEY_COLUMNS, args->q + at * SIZE, SIZE, r < count);
    copy_padded(buffers->dout + r * VALUE_COLUMNS, args->dout + at * VALUE, VALUE, r < count);
  }
  set_zero(buffers->probabilities, rows * KEY_ROWS);
  set_zero(buffers->dscores, rows * KEY_ROWS);
  set_zero(buffers->dq, rows * KEY_COLUMNS);
  multiply(buffers->probabilities, KEY_ROWS, buffers->q, KEY_COLUMNS, 1, buffers->keys_transposed,
           BLOCK, rows, columns, SIZE);
  multiply(buffers->dscores, KEY_ROWS, buffers->dout, VALUE_COLUMNS, 1, buffers->values_transposed,
           BLOCK, rows, columns, VALUE);
  for (int r = 0; r < rows; r++)
    backward_row(args, buffers, r, b, head, MIN(t0 + r, T - 1), r < count, s, columns);
  multiply(buffers->dv, VALUE_COLUMNS, buffers->probabilities, 1, KEY_ROWS, buffers->dout,
           VALUE_COLUMNS, key_rows, VALUE_COLUMNS, rows);
  multiply(buffers->dk, KEY_COLUMNS, buffers->dscores, 1, KEY_ROWS, buffers->q, KEY_COLUMNS,
           key_rows, KEY_COLUMNS, rows);
  multiply(buffers->dq, KEY_COLUMNS, buffers->dscores, KEY_ROWS, 1, buffers->keys, KEY_COLUMNS,
           rows, KEY_COLUMNS, keys);
  for (int r = 0; r < count; r++) {
    float *dq = args->dq + query_offset(b, t0 + r, head, SIZE);
    for (int d = 0; d < SIZE; d++) dq[d] += buffers->dq[r * KEY_COLUMNS + d];
  }
}

NOINLINE static void run_tile(const void *given, int tile) {
  const struct args *args = given;
  struct buffers buffers;
  int b = tile / HEADS, kv_head = tile % HEADS, group = H / HEADS;
  int begin = kv_head * group, end = begin + group;
  for (int t = 0; t < T; t++) set_zero(args->dq + query_offset(b, t, begin, SIZE), group * SIZE);
  for (int s = 0; s < CAPACITY; s += BLOCK) {
    int keys = MIN(BLOCK, CAPACITY - s);
    pack_transposed(buffers.keys_transposed, BLOCK, args->k, SIZE, b, kv_head, s, keys);
    pack_transposed(buffers.values_transposed, BLOCK, args->v, VALUE, b, kv_head, s, keys);
    pack(buffers.keys, args->k, SIZE, b, kv_head, s, keys);
    set_zero(buffers.dk, KEY_ROWS * KEY_COLUMNS);
    set_zero(buffers.dv, KEY_ROWS * VALUE_COLUMNS);
    for (int t = 0; t < T; t += QUERIES) {
      int count = MIN(QUERIES, T - t);
      if (first_key(args, b, t) >= s + keys || last_key(args, b, t + count - 1) < s) continue;
      if (!sees_some(args, b, t, t + count - 1, s, keys)) continue;
      for (int head = begin; head < end; head++)
        add_queries(args, &buffers, b, head, t, count, s, keys);
    }
    for (int c = 0; c < keys; c++) {
      float *dk = args->dk + key_offset(b, s + c, kv_head, SIZE);
      float *dv = args->dv + key_offset(b, s + c, kv_head, VALUE);
      for (int d = 0; d < SIZE; d++) dk[d] = buffers.dk[c * KEY_COLUMNS + d];
      for (int d = 0; d < VALUE; d++) dv[d] = buffers.dv[c * VALUE_COLUMNS + d];
    }
  }
}

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  struct args args = {ARGUMENTS};
  parallel_for(pool, run_tile, &args, B * HEADS);
}
