// Programs one behind the other. A row of the table says which, in how many parts, where each
// part's number goes among the arguments (-1 for a program in one part), and the arguments.

#define TAKEN(row) (row)[3], (row)[4], (row)[5], (row)[6], (row)[7], (row)[8], (row)[9], (row)[10], \
  (row)[11], (row)[12], (row)[13], (row)[14], (row)[15], (row)[16], (row)[17], (row)[18]
#define ROW 19
typedef unsigned long word;
// A program leaves alone what it is given too much.
typedef void (*program)(word, word, word, word, word, word, word, word, word, word, word, word,
                        word, word, word, word);

static void part(const void *given, int number) {
  word row[ROW];
  for (int i = 0; i < ROW; i++) row[i] = ((const volatile word *)given)[i];
  row[3 + row[2]] = number;
  ((program)row[0])(TAKEN(row));
}

void sequence(const word *rows, long count, struct team *team) {
  for (const word *row = rows; row < rows + count * ROW; row += ROW)
    if ((long)row[2] < 0) ((program)row[0])(TAKEN(row));
    else team_run(team, part, row, row[1]);
}
