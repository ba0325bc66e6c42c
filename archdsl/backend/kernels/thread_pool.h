// A thread pool that runs the tiles of one piece of work in parallel.
//
// The thread that calls `parallel_for` works too, so a pool without workers needs no other thread.
// Each thread has a queue of tiles. It takes its own tiles first, then those that other threads
// have left: threads seldom write to the same cache line, which would cost as much as a small
// tile. A thread takes a tile by decrementing the count of a queue with compare-and-swap. The
// upper half of the count is the number of the run, so a queue of an old run is not mistaken for
// one of the new run. A run ends only after every tile that was taken is finished, so what a
// worker reads after it has taken a tile belongs to that run.

#define CACHE_LINE_ALIGNED __attribute__((aligned(64)))

typedef void (*tile_function)(const void *, int);

struct tile_queue {
  unsigned long left CACHE_LINE_ALIGNED;  // number of the run, tiles not yet taken
};

struct thread_pool {
  long workers;                  // set by Python, as are the next three
  int (*post)(void *);           // sem_post and sem_wait of the C library
  int (*wait)(void *);
  void *sleeping;                // the semaphore on which workers sleep
  tile_function run_tile CACHE_LINE_ALIGNED;
  const void *args;
  int tiles;
  unsigned run;
  int finished CACHE_LINE_ALIGNED;
  int busy CACHE_LINE_ALIGNED;
  int asleep CACHE_LINE_ALIGNED;
  int joined;
  struct tile_queue queues[];    // of the calling thread, and of each worker
};

#define COUNT 0xffffffffUL
#define LOAD(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define STORE(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// The first tile in the queue of a thread; for the thread after the last, the number of tiles.
static inline int first_tile(const struct thread_pool *pool, int tiles, long thread) {
  return (tiles * thread + pool->workers) / (pool->workers + 1);
}

// Runs the tiles of one queue that no thread has taken, and returns how many it ran.
static int drain_queue(struct thread_pool *pool, long thread) {
  unsigned long *left = &pool->queues[thread].left, seen = LOAD(left);
  int done = 0;
  while (seen & COUNT) {
    if (!__atomic_compare_exchange_n(left, &seen, seen - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      continue;
    pool->run_tile(pool->args, first_tile(pool, pool->tiles, thread + 1) - (int)(seen & COUNT));
    done++, seen--;
  }
  return done;
}

// Drains all queues, the thread's own first, and returns how many tiles it ran.
static int drain_all_queues(struct thread_pool *pool, long thread) {
  int done = 0;
  for (long i = 0; i <= pool->workers; i++)
    done += drain_queue(pool, (thread + i) % (pool->workers + 1));
  if (done) __atomic_fetch_add(&pool->finished, done, __ATOMIC_SEQ_CST);
  return done;
}

// Runs tiles 0 to `tiles` - 1 in any order, on all threads.
static void parallel_for(struct thread_pool *pool, tile_function run_tile, const void *args,
                         int tiles) {
  // If the workers are busy with the run of another thread, this thread works alone.
  if (tiles == 1 || !pool->workers || __atomic_exchange_n(&pool->busy, 1, __ATOMIC_SEQ_CST)) {
    for (int i = 0; i < tiles; i++) run_tile(args, i);
    return;
  }
  pool->run_tile = run_tile;
  pool->args = args;
  pool->tiles = tiles;
  pool->run++;
  STORE(&pool->finished, 0);
  for (long i = pool->workers; i >= 0; i--) {
    int count = first_tile(pool, tiles, i + 1) - first_tile(pool, tiles, i);
    STORE(&pool->queues[i].left, (unsigned long)pool->run << 32 | (unsigned)count);
  }
  if (LOAD(&pool->asleep))
    for (int n = __atomic_exchange_n(&pool->asleep, 0, __ATOMIC_SEQ_CST); n; n--)
      pool->post(pool->sleeping);
  drain_all_queues(pool, 0);
  while (LOAD(&pool->finished) != tiles) relax();
  STORE(&pool->busy, 0);
}
