// Weights as they lie in memory, read as float32: LANES at once, or the one at an address.

#if defined(BFLOAT16)
typedef unsigned short weight;
typedef weight packed __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
INLINE vec weights(const weight *p) {
  return (vec)(__builtin_convertvector(*(const packed *)p, ivec) << 16);
}
INLINE float one(const weight *p) {
  union { unsigned bits; float value; } it = {(unsigned)*p << 16};
  return it.value;
}
#elif defined(FLOAT16)
typedef __fp16 weight;
typedef weight packed __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
INLINE vec weights(const weight *p) { return __builtin_convertvector(*(const packed *)p, vec); }
INLINE float one(const weight *p) { return *p; }
#else
typedef float weight;
INLINE vec weights(const weight *p) { return load(p); }
INLINE float one(const weight *p) { return *p; }
#endif

INLINE vec everywhere(const weight *p) { return splat(one(p)); }

// The numbers of a weight's matrix [rows, width], named by how many stand before them. They are
// WHOLE where they have 8 bits or 4: each GROUP of a row, 16 or 32, then has a scale with which
// they are multiplied, and with OFFSETS what is added to that.
#if defined(INT8) || defined(INT4)
#define WHOLE
#if OFFSETS
#define FULL(v, with, at) ((v) * (with)->scales[(at) / GROUP] + (with)->offsets[(at) / GROUP])
#else
#define FULL(v, with, at) ((v) * (with)->scales[(at) / GROUP])
#endif
#if defined(INT4)
// 32 numbers are 16 bytes: the lower halves of all, then the upper ones.
typedef unsigned char number;
#define PLACE(at) ((at) / 32 * 16 + (at) % 16)
#define HALF(bytes, at) ((at) % 32 < 16 ? (bytes) & 15 : (bytes) >> 4)
#else
typedef signed char number;
#define PLACE(at) (at)
#define HALF(bytes, at) (bytes)
#endif
typedef number few __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef number many __attribute__((vector_size(2 * LANES), aligned(1), may_alias));

INLINE vec numbers(const number *p, long at) {
  few each = HALF(*(const few *)(p + PLACE(at)), at);
  return __builtin_convertvector(__builtin_convertvector(each, ivec), vec);
}

// 2 * LANES of them from `at`, where a group begins, plus t, a constant.
INLINE svec whole(const number *p, unsigned long at, int t) {
#if defined(INT4) && LANES == 16  // both halves of the same bytes
  few bytes = *(const few *)(p + at / 2);
  union { shalf parts[2]; svec all; } it = {{__builtin_convertvector(bytes & 15, shalf),
                                             __builtin_convertvector(bytes >> 4, shalf)}};
  return it.all;
#else
  many bytes = *(const many *)(p + PLACE(at) + PLACE(t));
  return __builtin_convertvector(HALF(bytes, t), svec);
#endif
}
#else
typedef weight number;
#define FULL(v, with, at) (v)
INLINE vec numbers(const number *p, long at) { return weights(p + at); }
#endif
