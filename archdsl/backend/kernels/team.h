// A team of threads that share the chunks of one piece of work.
//
// Whoever calls `team_run` takes chunks too, so a team of one needs nobody. Each thread has a
// share of them, and takes those that the others have left when it has done its own: so it
// seldom writes where another reads, which takes as long as small chunks do. A chunk is taken by
// lowering a share's count with compare-and-swap; the run's number in the upper half tells an
// old share from a new one. A run cannot end before every chunk that was taken is finished, so
// what a helper reads after it has taken one belongs to that run.

#define APART __attribute__((aligned(64)))

typedef void (*work)(const void *, int);

struct share {
  unsigned long left APART;  // a run's number, chunks not yet taken
};

struct team {
  long helpers;                  // set by Python, as the next three are
  int (*post)(void *);           // sem_post and sem_wait of the C library
  int (*wait)(void *);
  void *sleeping;                // the semaphore on which helpers sleep
  work what APART;
  const void *with;
  int chunks;
  unsigned run;
  int finished APART;
  int busy APART;
  int asleep APART;
  int joined;
  struct share shares[];         // of the thread that calls, and of each helper
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

// The first chunk of a thread's share; of the one behind the last, how many there are.
static inline int team_first(const struct team *team, int chunks, long thread) {
  return (chunks * thread + team->helpers) / (team->helpers + 1);
}

// Does the chunks of one share that nobody has taken, and says how many they were.
static int team_share(struct team *team, long thread) {
  unsigned long *left = &team->shares[thread].left, seen = LOAD(left);
  int done = 0;
  while (seen & COUNT) {
    if (!__atomic_compare_exchange_n(left, &seen, seen - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      continue;
    team->what(team->with, team_first(team, team->chunks, thread + 1) - (int)(seen & COUNT));
    done++, seen--;
  }
  return done;
}

// Does what there is to do, a thread's own share first; 0 where nothing is left.
static int team_work(struct team *team, long thread) {
  int done = 0;
  for (long i = 0; i <= team->helpers; i++)
    done += team_share(team, (thread + i) % (team->helpers + 1));
  if (done) __atomic_fetch_add(&team->finished, done, __ATOMIC_SEQ_CST);
  return done;
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
  team->run++;
  STORE(&team->finished, 0);
  for (long i = team->helpers; i >= 0; i--) {
    int count = team_first(team, chunks, i + 1) - team_first(team, chunks, i);
    STORE(&team->shares[i].left, (unsigned long)team->run << 32 | (unsigned)count);
  }
  if (LOAD(&team->asleep))
    for (int n = __atomic_exchange_n(&team->asleep, 0, __ATOMIC_SEQ_CST); n; n--)
      team->post(team->sleeping);
  team_work(team, 0);
  while (LOAD(&team->finished) != chunks) relax();
  STORE(&team->busy, 0);
}
