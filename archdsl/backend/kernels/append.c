// Writes values [B, T, WIDTH] of new tokens into a cache [B, CAPACITY, WIDTH]. Token t has the
// cache position `past` + t; a sliding-window cache stores it at this position modulo RING_SIZE.

void KERNEL(PARAMETERS, struct thread_pool *pool) {
  for (int b = 0; b < B; b++)
    for (int t = 0; t < T; t++) {
      long position = *past + t;
      long to = (long)b * CAPACITY + (RING_SIZE ? position % RING_SIZE : position);
      long from = (long)b * T + t;
      for (int i = 0; i < WIDTH; i++) cache[to * WIDTH + i] = values[from * WIDTH + i];
    }
}
