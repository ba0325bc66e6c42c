// Reads weights in their stored dtype as float32: LANES at once, or a single one.

#if defined(BFLOAT16)
typedef unsigned short weight;
typedef weight packed __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
INLINE vec load_weights(const weight *p) {
  return (vec)(__builtin_convertvector(*(const packed *)p, ivec) << 16);
}
INLINE float read_weight(const weight *p) {
  union { unsigned bits; float value; } it = {(unsigned)*p << 16};
  return it.value;
}
#elif defined(FLOAT16)
typedef __fp16 weight;
typedef weight packed __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
INLINE vec load_weights(const weight *p) {
  return __builtin_convertvector(*(const packed *)p, vec);
}
INLINE float read_weight(const weight *p) { return *p; }
#else
typedef float weight;
INLINE vec load_weights(const weight *p) { return load(p); }
INLINE float read_weight(const weight *p) { return *p; }
#endif

INLINE vec broadcast_weight(const weight *p) { return splat(read_weight(p)); }

// Elements of a weight matrix [rows, width], indexed by their position in the whole matrix. They
// are QUANTIZED if they have 8 or 4 bits. Each GROUP of a row, 16 or 32 elements (32 for 4 bits),
// has a scale, and with OFFSETS an offset: the value is element * scale + offset.
#if defined(INT8) || defined(INT4)
#define QUANTIZED
#if OFFSETS
#define DEQUANTIZE(v, args, at) ((v) * (args)->scales[(at) / GROUP] + (args)->offsets[(at) / GROUP])
#else
#define DEQUANTIZE(v, args, at) ((v) * (args)->scales[(at) / GROUP])
#endif
#if defined(INT4)
// 16 bytes hold 32 elements: the lower 4 bits of all bytes, then the upper 4 bits.
typedef unsigned char element;
#define BYTE_OF(at) ((at) / 32 * 16 + (at) % 16)
#define NIBBLE(bytes, at) ((at) % 32 < 16 ? (bytes) & 15 : (bytes) >> 4)
#else
typedef signed char element;
#define BYTE_OF(at) (at)
#define NIBBLE(bytes, at) (bytes)
#endif
typedef element lane_bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef element pair_bytes __attribute__((vector_size(2 * LANES), aligned(1), may_alias));

INLINE vec load_elements(const element *p, long at) {
  lane_bytes each = NIBBLE(*(const lane_bytes *)(p + BYTE_OF(at)), at);
  return __builtin_convertvector(__builtin_convertvector(each, ivec), vec);
}

// STEP elements of a row are read as vectors of 16-bit integers. Lane i of vector t is element
// INDEX_IN_STEP(t, i). After multiply_add_pairs, 32-bit lane i belongs to group GROUP_OF(i).
#if defined(INT4)  // each 16-bit lane holds four elements; vector t takes the t-th
#define STEP (8 * LANES)
#define BYTES(elements) ((elements) / 2)
#define INDEX_IN_STEP(t, i) ((i) / 8 * 32 + (t) % 2 * 16 + (i) % 8 * 2 + (t) / 2)
#define GROUP_OF(i) ((i) / 4)
INLINE svec load_int16(const element *p, int t) {
  svec bytes = *(const sloose *)p;
  return t == 3 ? bytes >> 12 & 15 : bytes >> 4 * t & 15;
}
#else
#define STEP MAX(GROUP, 2 * LANES)
#define BYTES(elements) (elements)
#define INDEX_IN_STEP(t, i) ((t) * 2 * LANES + (i))
#define GROUP_OF(i) (2 * (i) / GROUP)
INLINE svec load_int16(const element *p, int t) {
  return __builtin_convertvector(*(const pair_bytes *)(p + t * 2 * LANES), svec);
}
#endif
#else
typedef weight element;
#define DEQUANTIZE(v, args, at) (v)
INLINE vec load_elements(const element *p, long at) { return load_weights(p + at); }
#endif
