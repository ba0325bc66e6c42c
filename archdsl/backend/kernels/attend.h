// What attention reads, and which keys a query may see: the columns from `first` to `last`.
//
// q [B, T, H, SIZE]; k [B, ROOM, HEADS, SIZE] and v [B, ROOM, HEADS, VALUE] of which H / HEADS
// heads of q share each. Query t stands in column `past` + t; CAUSAL ones see nothing behind
// themselves, and with a WINDOW that many columns, themselves counted. Before `starts` there is
// nothing to see, and from `lengths` on. In a RING column c stands at place c % RING.

#define NOTHING -__builtin_inff()

struct args {
  float *out;
  const float *q;
  const weight *k, *v;
  const int *past, *starts, *lengths;
};

INLINE int last(const struct args *with, int b, int t) {
  if (CAUSAL) return (with->past ? *with->past : 0) + t;
  return (with->lengths ? with->lengths[b] : ROOM) - 1;
}

INLINE int first(const struct args *with, int b, int t) {
  if (!CAUSAL) return 0;
  int here = last(with, b, t), found = with->starts ? with->starts[b] : 0;
  if (WINDOW) found = MOST(found, here - WINDOW + 1);
  return LEAST(MOST(found, 0), here);  // what stands in front of a row sees itself
}

INLINE long place(int b, int column, int head, int size) {
  int at = RING ? column % RING : column;
  return (((long)b * ROOM + at) * HEADS + head) * size;
}
