// The gradient of a table [ROWS, D]: each row is the sum of those of dy [M, D] whose tokens [M]
// name it. A chunk is a run of the table's rows, which nobody else writes.

struct args {
  float *table;
  const int *tokens;
  const float *dy;
};

ALONE static void part(const void *given, int chunk) {
  const struct args *with = given;
  int first = chunk * RUN, end = LEAST(first + RUN, ROWS);
  for (long i = (long)first * D; i < (long)end * D; i++) with->table[i] = 0;
  for (int i = 0; i < M; i++) {
    int row = with->tokens[i];
    if (row < first || row >= end) continue;
    float *to = with->table + (long)row * D;
    const float *dy = with->dy + (long)i * D;
    int d = 0;
    for (; d + LANES <= D; d += LANES) store(to + d, load(to + d) + load(dy + d));
    for (; d < D; d++) to[d] += dy[d];
  }
}

void KERNEL(PARAMETERS, struct team *team) {
  struct args with = {ARGUMENTS};
  team_run(team, part, &with, (ROWS + RUN - 1) / RUN);
}
