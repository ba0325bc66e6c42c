// Rounds x to the nearest bfloat16, ties to even. NaN stays NaN.

__bf16 round_bfloat16(float x) {
  union { float value; unsigned bits; } it = {x};
  unsigned bits = x == x ? it.bits + 0x7fff + (it.bits >> 16 & 1) : it.bits | 0x10000;
  return __builtin_bit_cast(__bf16, (unsigned short)(bits >> 16));
}
