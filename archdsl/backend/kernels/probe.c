// Twice each of three numbers, and one: what a device is asked before it is believed.

void probe(float *x) {
  for (int i = 0; i < 3; i++) x[i] = x[i] * 2 + 1;
}
