// What the attention kernels share: their arguments, which keys a query may see, and matrix
// products of register tiles.
//
// q [B, T, H, SIZE], k [B, CAPACITY, HEADS, SIZE] and v [B, CAPACITY, HEADS, VALUE]; H / HEADS
// heads of q share a head of k and v. Query t is at cache position `past` + t. Which keys it sees
// is said by the macros of kernels/masks.py, by positions in the row. Keys before `starts` (left
// padding) and from `lengths` on (right padding) are hidden. A sliding-window cache stores position
// p at p % RING_SIZE. With SOFTCAP the scores are SOFTCAP * tanh(scores / SOFTCAP). `sink` [SINKS, H]
// is the score of a key without a value, for each row of the batch or for all.

#define MINUS_INFINITY -__builtin_inff()

struct args {
  // out [B, T, H, VALUE]. For training also totals [B, T, H, 2]: of each query the largest score,
  // and the sum of exp(score - largest score).
  float *out, *totals;
  const float *q;
  const weight *k, *v;
  const float *sink;
  const int *past, *starts, *lengths;
  // The gradients, from that of out, and the results of the forward kernel.
  float *dq, *dk, *dv;
  const float *dout, *forward_out, *forward_totals;
};

INLINE float sink_score(const struct args *args, int b, int head) {
  return args->sink ? args->sink[(SINKS > 1 ? b : 0) * H + head] : MINUS_INFINITY;
}

INLINE int row_start(const struct args *args, int b) { return args->starts ? args->starts[b] : 0; }

// The position of a query in its row; of left padding it is negative.
INLINE int row_position(const struct args *args, int b, int t) {
  return (args->past ? *args->past : 0) + t - row_start(args, b);
}

// The last key that a query may see.
INLINE int last_key(const struct args *args, int b, int t) {
  int found = HIGHEST(row_position(args, b, t)), end = CAPACITY;
  if (args->past) end = *args->past + T;
  if (args->lengths) end = args->lengths[b];
  return MIN(found, end - 1 - row_start(args, b)) + row_start(args, b);
}

// The first key that a query may see.
INLINE int first_key(const struct args *args, int b, int t) {
  int found = LOWEST(row_position(args, b, t));
  return MIN(MAX(found, 0), 1 << 30) + row_start(args, b);
}

// Whether some of the queries t0 to t1 see some of `count` keys, from s on.
INLINE int sees_some(const struct args *args, int b, int t0, int t1, int s, int count) {
  int i0 = row_position(args, b, t0), i1 = row_position(args, b, t1), j = s - row_start(args, b);
  return INTERVAL || SOME(i0, i1, j, j + count - 1);
}

// Hides the keys, of `count` from s on, that query t does not see.
INLINE void hide(const struct args *args, float *scores, int b, int t, int s, int count,
                 float hidden) {
  int i = row_position(args, b, t), j = s - row_start(args, b);
  if (INTERVAL || ALL(i, i, j, j + count - 1)) return;
  for (int c = 0; c < count; c++)
    if (!SEES(i, j + c)) scores[c] = hidden;
}

// The scores of `count` keys (to a whole vector) from the products of queries and keys.
#define FACTOR (CAPPED ? 1.0f : SCALE)
INLINE void cap(float *scores, int count) {
  if (!CAPPED) return;
  for (int s = 0; s < count; s += LANES)
    store(scores + s, SOFTCAP * tanh(load(scores + s) * (SCALE / SOFTCAP)));
}

// The offset of a key or value in its cache.
INLINE long key_offset(int b, int position, int head, int size) {
  int at = RING_SIZE ? position % RING_SIZE : position;
  return (((long)b * CAPACITY + at) * HEADS + head) * size;
}

// The offset of a query in q and out (with their `size`), and in totals (with 2).
INLINE long query_offset(int b, int t, int head, int size) {
  return (((long)b * T + t) * H + head) * size;
}

INLINE void save_totals(const struct args *args, int b, int t, int head, float top, float total) {
  if (!args->totals) return;
  args->totals[query_offset(b, t, head, 2)] = top;
  args->totals[query_offset(b, t, head, 2) + 1] = total;
}

// -- matrix products: register tiles of MR x NR; queries and a BLOCK of keys in the cache --

#define NR (NR_VECTORS * LANES)
#define MR 6
#define PADDED(size) (((size) + NR - 1) / NR * NR)  // to a multiple of NR

// Packs `count` keys or values from position s on as float32, transposed: [size, PADDED(count)],
// with rows `to_row` apart. The last one is repeated as padding.
INLINE void pack_transposed(float *to, int to_row, const weight *from, int size, int b, int head,
                            int s, int count) {
  for (int c = 0; c < PADDED(count); c += LANES) {
    const weight *rows[LANES];
    for (int i = 0; i < LANES; i++)
      rows[i] = from + key_offset(b, s + MIN(c + i, count - 1), head, size);
    int d = 0;
    for (; d + LANES <= size; d += LANES) {
      vec square[LANES];
      UNROLL for (int i = 0; i < LANES; i++) square[i] = load_weights(rows[i] + d);
      transpose_square(square);
      UNROLL for (int i = 0; i < LANES; i++) store(to + (d + i) * to_row + c, square[i]);
    }
    for (; d < size; d++)
      for (int i = 0; i < LANES; i++) to[d * to_row + c + i] = read_weight(rows[i] + d);
  }
}

// Packs `count` keys or values as float32, padded with zeros: [count, PADDED(size)].
INLINE void pack(float *to, const weight *from, int size, int b, int head, int s, int count) {
  for (int c = 0; c < count; c++, to += PADDED(size)) {
    const weight *row = from + key_offset(b, s + c, head, size);
    int d = 0;
    for (; d + LANES <= size; d += LANES) store(to + d, load_weights(row + d));
    for (; d < size; d++) to[d] = read_weight(row + d);
    for (; d < PADDED(size); d++) to[d] = 0;
  }
}

// to [MR, NR] += a [MR, depth] b [depth, NR], in registers. Rows of `to` and b are `to_row` and
// `b_row` apart; a has a pointer to each row, whose numbers are `step` apart.
INLINE void multiply_tile(float *to, int to_row, const float *const a[MR], int step,
                          const float *b, int b_row, int depth) {
  vec sums[MR][NR_VECTORS];
  UNROLL for (int r = 0; r < MR; r++)
    UNROLL for (int w = 0; w < NR_VECTORS; w++) sums[r][w] = load(to + r * to_row + w * LANES);
  for (int k = 0; k < depth; k++)
    UNROLL for (int r = 0; r < MR; r++)
      UNROLL for (int w = 0; w < NR_VECTORS; w++)
        sums[r][w] += a[r][k * step] * load(b + k * b_row + w * LANES);
  UNROLL for (int r = 0; r < MR; r++)
    UNROLL for (int w = 0; w < NR_VECTORS; w++) store(to + r * to_row + w * LANES, sums[r][w]);
}

// to [rows, columns] += a [rows, depth] b [depth, columns], in whole register tiles.
INLINE void multiply(float *to, int to_row, const float *a, int a_row, int a_step, const float *b,
                     int b_row, int rows, int columns, int depth) {
  for (int r = 0; r < rows; r += MR) {
    const float *a_rows[MR];
    UNROLL for (int i = 0; i < MR; i++) a_rows[i] = a + (r + i) * a_row;
    for (int c = 0; c < columns; c += NR)
      multiply_tile(to + r * to_row + c, to_row, a_rows, a_step, b + c, b_row, depth);
  }
}

INLINE void set_zero(float *to, int count) {
  for (int i = 0; i < count; i++) to[i] = 0;
}
