// x to bfloat16, of two equally near the even one; a NaN stays one.

__bf16 narrow(float x) {
  union { float value; unsigned bits; } it = {x};
  unsigned bits = x == x ? it.bits + 0x7fff + (it.bits >> 16 & 1) : it.bits | 0x10000;
  return __builtin_bit_cast(__bf16, (unsigned short)(bits >> 16));
}
