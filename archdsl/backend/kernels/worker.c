// The loop of a worker thread, until the process ends: run tiles, spin for a short time when there
// are none, then sleep.

#define SPINS 4000

void worker(struct thread_pool *pool) {
  long me = 1 + __atomic_fetch_add(&pool->joined, 1, __ATOMIC_SEQ_CST);
  for (;;) {
    int spins = 0;
    while (spins++ < SPINS) {
      if (LOAD(&pool->queues[me].left) & COUNT && drain_all_queues(pool, me)) spins = 0;
      relax();
    }
    __atomic_fetch_add(&pool->asleep, 1, __ATOMIC_SEQ_CST);
    if (LOAD(&pool->queues[me].left) & COUNT) {
      // A run began after the last check: do not sleep, unless a wake-up is already on its way.
      int asleep = LOAD(&pool->asleep), awake = 0;
      while (asleep && !awake)
        awake = __atomic_compare_exchange_n(&pool->asleep, &asleep, asleep - 1, 0,
                                            __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
      if (awake) continue;
    }
    pool->wait(pool->sleeping);
  }
}
