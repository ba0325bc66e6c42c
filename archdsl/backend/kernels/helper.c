// What a helper does for as long as the process lives: does its share of the chunks, spins a
// little where there are none, and sleeps.

#define SPINS 4000

void helper(struct team *team) {
  long me = 1 + __atomic_fetch_add(&team->joined, 1, __ATOMIC_SEQ_CST);
  for (;;) {
    int spins = 0;
    while (spins++ < SPINS) {
      if (LOAD(&team->shares[me].left) & COUNT && team_work(team, me)) spins = 0;
      relax();
    }
    __atomic_fetch_add(&team->asleep, 1, __ATOMIC_SEQ_CST);
    if (LOAD(&team->shares[me].left) & COUNT) {
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
