// Runs the calls of a captured program in order. A row of the table is one call: the program's
// address, its number of tiles, which argument is the tile's index (-1: the program is not divided
// into tiles), and the arguments.

#define ARGUMENTS(row) (row)[3], (row)[4], (row)[5], (row)[6], (row)[7], (row)[8], (row)[9], \
  (row)[10], (row)[11], (row)[12], (row)[13], (row)[14], (row)[15], (row)[16], (row)[17], (row)[18]
#define ROW 19
typedef unsigned long word;
// All programs are called with 16 arguments; they ignore those after their own.
typedef void (*program)(word, word, word, word, word, word, word, word, word, word, word, word,
                        word, word, word, word);

static void run_tile(const void *given, int tile) {
  word row[ROW];
  for (int i = 0; i < ROW; i++) row[i] = ((const volatile word *)given)[i];
  row[3 + row[2]] = tile;
  ((program)row[0])(ARGUMENTS(row));
}

void graph_runner(const word *rows, long count, struct thread_pool *pool) {
  for (const word *row = rows; row < rows + count * ROW; row += ROW)
    if ((long)row[2] < 0) ((program)row[0])(ARGUMENTS(row));
    else parallel_for(pool, run_tile, row, row[1]);
}
