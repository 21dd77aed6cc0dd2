#pragma once
// The polynomial behind Exp() and its vector twins: numbers only, the operations are written in
// math.cc.

namespace temper::kernels {

// e^x = 2^n e^r with n = round(x / ln 2): adding kExpMagic = 1.5 * 2^23 rounds to an integer and
// leaves n in the low bits of the float, ready to be shifted into the exponent.
inline constexpr float kExpLow = -87.33f;
inline constexpr float kExpHigh = 88.72f;
inline constexpr float kExpMagic = 12582912.0f;
inline constexpr float kExpLog2E = 1.44269504088896341f;
inline constexpr float kExpLn2High = 0.693147182464599609375f;  // ln 2 rounded to float
inline constexpr float kExpLn2Low = -1.904654299957767e-9f;     // ln 2 - kExpLn2High
// e^r = 1 + r + r^2 (c2 + c3 r + ...) on |r| <= 0.3466, relative error 3.1e-9 (weighted minimax).
inline constexpr float kExpC2 = 0x1.fffffcp-2f;
inline constexpr float kExpC3 = 0x1.555492p-3f;
inline constexpr float kExpC4 = 0x1.5558f2p-5f;
inline constexpr float kExpC5 = 0x1.1239ecp-7f;
inline constexpr float kExpC6 = 0x1.6a2424p-10f;

}  // namespace temper::kernels
