// A team of threads that share the chunks of one piece of work.
//
// Whoever calls `team_run` takes chunks too, so a team of one needs nobody. Helpers take a
// chunk by lowering the ticket's count with compare-and-swap; the run's number in its upper
// half tells an old ticket from a new one. A run cannot end before every chunk that was taken
// is finished, so what a helper reads after it has taken one belongs to that run.

typedef void (*work)(const void *, int);

struct team {
  long helpers;                  // set by Python, as the next three are
  int (*post)(void *);           // sem_post and sem_wait of the C library
  int (*wait)(void *);
  void *sleeping;                // the semaphore on which helpers sleep
  unsigned long ticket __attribute__((aligned(64)));  // a run's number, chunks not yet taken
  work what __attribute__((aligned(64)));
  const void *with;
  int chunks;
  int finished __attribute__((aligned(64)));
  int busy __attribute__((aligned(64)));
  int asleep __attribute__((aligned(64)));
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

// Takes a chunk and does it; 0 where none is left.
static int team_take(struct team *team) {
  unsigned long ticket = LOAD(&team->ticket);
  while (ticket & COUNT) {
    if (!__atomic_compare_exchange_n(&team->ticket, &ticket, ticket - 1, 0, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST))
      continue;
    team->what(team->with, team->chunks - (int)(ticket & COUNT));
    __atomic_fetch_add(&team->finished, 1, __ATOMIC_SEQ_CST);
    return 1;
  }
  return 0;
}

// Does chunks 0 to `chunks` - 1 of some work, in any order, on as many threads as there are.
static void team_run(struct team *team, work what, const void *with, int chunks) {
  // Another thread's run keeps the helpers: this one goes on alone.
  if (chunks == 1 || !team->helpers || __atomic_exchange_n(&team->busy, 1, __ATOMIC_SEQ_CST)) {
    for (int i = 0; i < chunks; i++) what(with, i);
    return;
  }
  team->what = what;
  team->with = with;
  team->chunks = chunks;
  STORE(&team->finished, 0);
  STORE(&team->ticket, (((team->ticket >> 32) + 1) << 32) | (unsigned long)chunks);
  if (LOAD(&team->asleep))
    for (int n = __atomic_exchange_n(&team->asleep, 0, __ATOMIC_SEQ_CST); n; n--)
      team->post(team->sleeping);
  while (team_take(team)) {}
  while (LOAD(&team->finished) != chunks) relax();
  STORE(&team->busy, 0);
}
