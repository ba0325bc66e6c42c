// What a processor can do at most, on all threads: multiply and add without touching memory, and
// read memory without computing.

#define CHAINS 10  // independent sums, more than the pipeline is long
#define STREAMS 8  // places that are read at once
#define AHEAD 16   // lines of the cache that are asked for before they are needed
#define LINE 16    // numbers

struct args {
  const float *from;
  float *to;
  long count;
};

// Each chunk is `count` multiply-adds.
ALONE static void multiplied(const void *given, int chunk) {
  const struct args *with = given;
  vec sums[CHAINS], by = splat(with->from[0]), plus = splat(with->from[1]);
  UNROLL for (int i = 0; i < CHAINS; i++) sums[i] = splat(i);
  for (long n = 0; n < with->count; n += CHAINS * LANES)
    UNROLL for (int i = 0; i < CHAINS; i++) sums[i] = sums[i] * by + plus;
  UNROLL for (int i = 1; i < CHAINS; i++) sums[0] += sums[i];
  with->to[chunk] = sum(sums[0]);
}

// Each chunk is `count` lines, of which STREAMS runs are read beside one another.
ALONE static void taken(const void *given, int chunk) {
  const struct args *with = given;
  long run = with->count / STREAMS * LINE;
  const float *from = with->from + chunk * run * STREAMS;
  vec sums[STREAMS];
  UNROLL for (int s = 0; s < STREAMS; s++) sums[s] = splat(0);
  for (long n = 0; n < run; n += LINE)
    UNROLL for (int s = 0; s < STREAMS; s++) {
      __builtin_prefetch(from + s * run + n + AHEAD * LINE);
      UNROLL for (int i = 0; i < LINE; i += LANES) sums[s] += load(from + s * run + n + i);
    }
  UNROLL for (int s = 1; s < STREAMS; s++) sums[0] += sums[s];
  with->to[chunk] = sum(sums[0]);
}

void limits(const float *from, float *to, long count, long chunks, long reads, struct team *team) {
  struct args with = {from, to, count};
  team_run(team, reads ? taken : multiplied, &with, (int)chunks);
}
