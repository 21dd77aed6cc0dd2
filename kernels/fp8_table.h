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

}  // namespace temper::kernels
