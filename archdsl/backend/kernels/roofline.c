// Measures the limits of the processor on all threads: multiply-adds in registers, without memory
// access; and sequential memory reads, with one addition per number.

#define CHAINS 10  // independent sums; more than the latency of a multiply-add
#define STREAMS 8  // addresses from which one tile reads at the same time
#define AHEAD 16   // cache lines to prefetch
#define LINE 16    // float32 numbers in a cache line

struct args {
  const float *from;
  float *to;
  long count;
};

// A tile is `count` multiply-adds.
NOINLINE static void multiply_add(const void *given, int tile) {
  const struct args *args = given;
  vec sums[CHAINS], by = splat(args->from[0]), plus = splat(args->from[1]);
  UNROLL for (int i = 0; i < CHAINS; i++) sums[i] = splat(i);
  for (long n = 0; n < args->count; n += CHAINS * LANES)
    UNROLL for (int i = 0; i < CHAINS; i++) sums[i] = sums[i] * by + plus;
  UNROLL for (int i = 1; i < CHAINS; i++) sums[0] += sums[i];
  args->to[tile] = sum(sums[0]);
}

// A tile is `count` cache lines, read as STREAMS streams in parallel.
NOINLINE static void read_memory(const void *given, int tile) {
  const struct args *args = given;
  long length = args->count / STREAMS * LINE;
  const float *from = args->from + tile * length * STREAMS;
  vec sums[STREAMS];
  UNROLL for (int s = 0; s < STREAMS; s++) sums[s] = splat(0);
  for (long n = 0; n < length; n += LINE)
    UNROLL for (int s = 0; s < STREAMS; s++) {
      __builtin_prefetch(from + s * length + n + AHEAD * LINE);
      UNROLL for (int i = 0; i < LINE; i += LANES) sums[s] += load(from + s * length + n + i);
    }
  UNROLL for (int s = 1; s < STREAMS; s++) sums[0] += sums[s];
  args->to[tile] = sum(sums[0]);
}

void roofline(const float *from, float *to, long count, long tiles, long reads,
              struct thread_pool *pool) {
  struct args args = {from, to, count};
  parallel_for(pool, reads ? read_memory : multiply_add, &args, (int)tiles);
}
