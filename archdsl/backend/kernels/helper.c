// What a helper does for as long as the process lives: takes chunks, spins a little where there
// are none, and sleeps.

#define SPINS 4000

void helper(struct team *team) {
  for (;;) {
    int spins = 0;
    while (spins++ < SPINS) {
      if (team_take(team)) spins = 0;
      relax();
    }
    __atomic_fetch_add(&team->asleep, 1, __ATOMIC_SEQ_CST);
    if (LOAD(&team->ticket) & COUNT) {
      // A run began between the last look and going to bed.
      int asleep = LOAD(&team->asleep), awake = 0;
      while (asleep && !awake)
        awake = __atomic_compare_exchange_n(&team->asleep, &asleep, asleep - 1, 0,
                                            __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
      if (awake) continue;
    }
    team->wait(team->sleeping);
  }
}
