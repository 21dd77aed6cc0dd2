#pragma once
// The 256 codes as the linear kernels count them.

namespace temper::kernels {

/// Value of E4M3 code c times 2^-8: the code's bits read as a half float of the same fields. The
/// two NaN codes give +-480 * 2^-8 here, as every vector decoding does; CheckFp8Weight refuses
/// them.
struct E4m3Table {
  float value[256];
};
extern const E4m3Table kShiftedE4m3;

/// The BF16 numbers of the 128 magnitudes (exact: three bits of mantissa), byte by byte.
struct E4m3Bytes {
  alignas(64) unsigned char low[128];
  alignas(64) unsigned char high[128];
};
extern const E4m3Bytes kShiftedE4m3Bytes;

}  // namespace temper::kernels
