// y [M, D]: of a table [ROWS, D] the row that each of the tokens [M] names, 0 where it has none.

struct args {
  float *y;
  const int *tokens;
  const number *table;
  const float *scales, *offsets;
};

ALONE static void part(const void *given, int chunk) {
  const struct args *with = given;
  for (int i = chunk * RUN; i < LEAST((chunk + 1) * RUN, M); i++) {
    long row = with->tokens[i];
    float *y = with->y + (long)i * D;
    int d = 0, there = row >= 0 && row < ROWS;
    for (; !there && d < D; d++) y[d] = 0;
    for (; d + LANES <= D; d += LANES)
      store(y + d, FULL(numbers(with->table, row * D + d), with, row * D + d));
#ifndef WHOLE  // which are whole groups
    for (; d < D; d++) y[d] = one(with->table + row * D + d);
#endif
  }
}

void KERNEL(PARAMETERS, struct team *team) {
  struct args with = {ARGUMENTS};
  team_run(team, part, &with, (M + RUN - 1) / RUN);
}
