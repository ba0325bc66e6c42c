// What attention reads, which keys a query may see, and the tiles that its products are made of.
//
// q [B, T, H, SIZE]; k [B, ROOM, HEADS, SIZE] and v [B, ROOM, HEADS, VALUE] of which H / HEADS
// heads of q share each. Query t stands in column `past` + t; CAUSAL ones see nothing behind
// themselves, and with a WINDOW that many columns, themselves counted. Before `starts` there is
// nothing to see, and from `lengths` on. In a RING column c stands at place c % RING.

#define NOTHING -__builtin_inff()

struct args {
  // out [B, T, H, VALUE]; where there will be gradients totals [B, T, H, 2], of each query its
  // largest score, and the sum of the exponentials of all less that.
  float *out, *totals;
  const float *q;
  const weight *k, *v;
  const int *past, *starts, *lengths;
  // The gradients, made of that of out and of what attention has given: out, and totals.
  float *dq, *dk, *dv;
  const float *dout, *given, *given_totals;
};

INLINE int last(const struct args *args, int b, int t) {
  if (CAUSAL) return (args->past ? *args->past : 0) + t;
  return (args->lengths ? args->lengths[b] : ROOM) - 1;
}

INLINE int first(const struct args *args, int b, int t) {
  if (!CAUSAL) return 0;
  int here = last(args, b, t), found = args->starts ? args->starts[b] : 0;
  if (WINDOW) found = MAX(found, here - WINDOW + 1);
  return MIN(MAX(found, 0), here);  // what stands in front of a row sees itself
}

INLINE long place(int b, int column, int head, int size) {
  int at = RING ? column % RING : column;
  return (((long)b * ROOM + at) * HEADS + head) * size;
}

// Where a query's row of q, of out (both by size) and of totals (by 2) stands.
INLINE long row(int b, int t, int head, int size) {
  return (((long)b * T + t) * H + head) * size;
}

INLINE void note(const struct args *args, int b, int t, int head, float most, float total) {
  if (!args->totals) return;
  args->totals[row(b, t, head, 2)] = most;
  args->totals[row(b, t, head, 2) + 1] = total;
}

// -- tiles: TALL by PANEL in registers, queries by a BLOCK of keys in the cache --

#define PANEL (WIDE * LANES)
#define TALL 6
#define PANELS(size) (((size) + PANEL - 1) / PANEL * PANEL)

// `count` keys or values of the columns from s on, as float32, turned over: size rows that
// stand to_row apart, of whole panels. Behind the last it stands again.
INLINE void turned(float *to, int to_row, const weight *from, int size, int b, int head, int s,
                   int count) {
  for (int c = 0; c < PANELS(count); c += LANES) {
    const weight *rows[LANES];
    for (int i = 0; i < LANES; i++)
      rows[i] = from + place(b, s + MIN(c + i, count - 1), head, size);
    int d = 0;
    for (; d + LANES <= size; d += LANES) {
      vec square[LANES];
      UNROLL for (int i = 0; i < LANES; i++) square[i] = weights(rows[i] + d);
      turn(square);
      UNROLL for (int i = 0; i < LANES; i++) store(to + (d + i) * to_row + c, square[i]);
    }
    for (; d < size; d++)
      for (int i = 0; i < LANES; i++) to[d * to_row + c + i] = one(rows[i] + d);
  }
}

// The same as they lie, with zeros behind each up to whole panels: [count, PANELS(size)].
INLINE void straight(float *to, const weight *from, int size, int b, int head, int s, int count) {
  for (int c = 0; c < count; c++, to += PANELS(size)) {
    const weight *row = from + place(b, s + c, head, size);
    int d = 0;
    for (; d + LANES <= size; d += LANES) store(to + d, weights(row + d));
    for (; d < size; d++) to[d] = one(row + d);
    for (; d < PANELS(size); d++) to[d] = 0;
  }
}

// to [TALL, PANEL] += a [TALL, depth] b [depth, PANEL]; the numbers are how far rows stand apart,
// and `step` how far neighbours in a row of a.
INLINE void multiply(float *to, int to_row, const float *const a[TALL], int step, const float *b,
                     int b_row, int depth) {
  vec sums[TALL][WIDE];
  UNROLL for (int r = 0; r < TALL; r++)
    UNROLL for (int w = 0; w < WIDE; w++) sums[r][w] = load(to + r * to_row + w * LANES);
  for (int k = 0; k < depth; k++)
    UNROLL for (int r = 0; r < TALL; r++)
      UNROLL for (int w = 0; w < WIDE; w++)
        sums[r][w] += a[r][k * step] * load(b + k * b_row + w * LANES);
  UNROLL for (int r = 0; r < TALL; r++)
    UNROLL for (int w = 0; w < WIDE; w++) store(to + r * to_row + w * LANES, sums[r][w]);
}

// to [tall, across] += a [tall, depth] b [depth, across], all that whole tiles cover.
INLINE void product(float *to, int to_row, const float *a, int a_row, int a_step, const float *b,
                    int b_row, int tall, int across, int depth) {
  for (int r = 0; r < tall; r += TALL) {
    const float *rows[TALL];
    UNROLL for (int i = 0; i < TALL; i++) rows[i] = a + (r + i) * a_row;
    for (int c = 0; c < across; c += PANEL)
      multiply(to + r * to_row + c, to_row, rows, a_step, b + c, b_row, depth);
  }
}

INLINE void zeros(float *to, int count) {
  for (int i = 0; i < count; i++) to[i] = 0;
}
