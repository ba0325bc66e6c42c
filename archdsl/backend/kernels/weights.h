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

// The numbers of a weight's matrix [rows, width]. Where they are INT8, each GROUP of a row has a
// scale, with which they are multiplied.
#define GROUP 32
#if defined(INT8)
#define GROUP_SCALE(scales, row, at, width) \
  splat((scales)[(long)(row) * ((width) / GROUP) + (at) / GROUP])
typedef signed char number;
typedef number few __attribute__((vector_size(LANES), aligned(1), may_alias));
INLINE vec numbers(const number *p) {
  return __builtin_convertvector(__builtin_convertvector(*(const few *)p, ivec), vec);
}
INLINE float number_at(const number *p) { return *p; }
#else
#define GROUP_SCALE(scales, row, at, width) 1
typedef weight number;
INLINE vec numbers(const number *p) { return weights(p); }
INLINE float number_at(const number *p) { return one(p); }
#endif
