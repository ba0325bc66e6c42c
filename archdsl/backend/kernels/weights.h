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
// WHOLE where they have 8 bits or 4: each GROUP of a row, 16 or 32, of 4 bits 32, then has a scale
// with which they are multiplied, and with OFFSETS what is added to that.
#if defined(INT8) || defined(INT4)
#define WHOLE
#if OFFSETS
#define FULL(v, args, at) ((v) * (args)->scales[(at) / GROUP] + (args)->offsets[(at) / GROUP])
#else
#define FULL(v, args, at) ((v) * (args)->scales[(at) / GROUP])
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

// STEP numbers of a row are read as vectors of 16 bits: lane i of vector t has number PLACED(t, i)
// of them, and the sum of a pair in lane i of 32 bits is one of group GROUP_OF(i).
#if defined(INT4)  // of each two bytes the four numbers in turn
#define STEP (8 * LANES)
#define BYTES(numbers) ((numbers) / 2)
#define PLACED(t, i) ((i) / 8 * 32 + (t) % 2 * 16 + (i) % 8 * 2 + (t) / 2)
#define GROUP_OF(i) ((i) / 4)
INLINE svec whole(const number *p, int t) {
  svec bytes = *(const sloose *)p;
  return t == 3 ? bytes >> 12 & 15 : bytes >> 4 * t & 15;
}
#else
#define STEP MAX(GROUP, 2 * LANES)
#define BYTES(numbers) (numbers)
#define PLACED(t, i) ((t) * 2 * LANES + (i))
#define GROUP_OF(i) (2 * (i) / GROUP)
INLINE svec whole(const number *p, int t) {
  return __builtin_convertvector(*(const many *)(p + t * 2 * LANES), svec);
}
#endif
#else
typedef weight number;
#define FULL(v, args, at) (v)
INLINE vec numbers(const number *p, long at) { return weights(p + at); }
#endif
