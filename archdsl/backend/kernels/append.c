// New vectors [B, T, WIDTH] are written into a cache of all, [B, ROOM, WIDTH], where their
// columns stand: column `past` + t at its place, in a RING at that modulo RING.

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  for (int b = 0; b < B; b++)
    for (int t = 0; t < T; t++) {
      long column = *past + t, to = (long)b * ROOM + (RING ? column % RING : column);
      long from = (long)b * T + t;
      for (int i = 0; i < WIDTH; i++) cache[to * WIDTH + i] = given[from * WIDTH + i];
    }
}
