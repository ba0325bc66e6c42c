// New keys and values [B, T, WIDTH] go to where their columns stand in what is kept of all,
// [B, ROOM, WIDTH]: column `past` + t at its place, in a RING at that modulo RING.

void KERNEL(PARAMETERS, struct team *team) {
  for (int b = 0; b < B; b++)
    for (int t = 0; t < T; t++) {
      long column = *past + t, to = (long)b * ROOM + (RING ? column % RING : column);
      long from = (long)b * T + t;
      for (int i = 0; i < WIDTH; i++) keys[to * WIDTH + i] = k[from * WIDTH + i];
      for (int i = 0; i < OTHER; i++) values[to * OTHER + i] = v[from * OTHER + i];
    }
}
