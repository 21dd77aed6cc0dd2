#pragma once
// Which variant runs: by cpuid or TEMPER_ISA=scalar|avx2|avx512. It never changes a bit.
#include <string>

namespace temper::kernels {

enum class Isa { kScalar, kAvx2, kAvx512 };

/// The variant in use. Throws std::invalid_argument when TEMPER_ISA names an unknown one or one
/// that this machine lacks.
Isa ActiveIsa();
/// What the machine has, best first is the default.
bool Supports(Isa isa);
std::string IsaName(Isa isa);
/// AVX-512 with VBMI (byte tables): the same bits, faster FP8.
bool HasVbmi();
/// For tests: switch the variant of this process (not thread-safe against running kernels).
void ForceIsa(Isa isa);
/// "AMD EPYC 9B14, AVX2 FMA F16C" for reports.
std::string CpuDescription();
/// Throws std::runtime_error when MXCSR of this thread is not the default (flush-to-zero changes
/// bits).
void CheckFloatingPointMode();

}  // namespace temper::kernels
