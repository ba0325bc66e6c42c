// What the attention kernels share: their arguments, which keys a query may see, and matrix
// products of register tiles.
//
// q [B, T, H, SIZE], k [B, CAPACITY, HEADS, SIZE] and v [B, CAPACITY, HEADS, VALUE]; H / HEADS
// heads of q share a head of k and v. Query t is at cache position `past` + t. If CAUSAL, it sees
// keys up to its own position, and with a WINDOW only the last WINDOW of them. Keys before `starts`
// (left padding) and from `lengths` on (right padding) are hidden. A sliding-window cache stores
// position p at p % RING_SIZE.

#define MINUS_INFINITY -__builtin_inff()

struct args {
  // out [B, T, H, VALUE]. For training also totals [B, T, H, 2]: of each query the largest score,
  // and the sum of exp(score - largest score).
  float *out, *totals;
  const float *q;
  const weight *k, *v;
  const int *past, *starts, *lengths;
  // The gradients, from that of out, and the results of the forward kernel.
  float *dq, *dk, *dv;
  const float *dout, *forward_out, *forward_totals;
};

// The last key that a query sees.
INLINE int last_key(const struct args *args, int b, int t) {
  if (CAUSAL) return (args->past ? *args->past : 0) + t;
  return (args->lengths ? args->lengths[b] : CAPACITY) - 1;
}

// The first key that a query sees.
INLINE int first_key(const struct args *args, int b, int t) {
  if (!CAUSAL) return 0;
  int here = last_key(args, b, t), found = args->starts ? args->starts[b] : 0;
  if (WINDOW) found = MAX(found, here - WINDOW + 1);
  return MIN(MAX(found, 0), here);  // a padding query sees itself
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
