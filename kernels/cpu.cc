#include "kernels/cpu.h"

#include <cpuid.h>
#include <immintrin.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace temper::kernels {
namespace {

// -1: not chosen yet.
std::atomic<int> active{-1};

Isa Best() {
  if (Supports(Isa::kAvx512)) return Isa::kAvx512;
  return Supports(Isa::kAvx2) ? Isa::kAvx2 : Isa::kScalar;
}

Isa Chosen() {
  const char* name = std::getenv("TEMPER_ISA");
  if (name == nullptr || *name == '\0') return Best();
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (IsaName(isa) != name) continue;
    if (!Supports(isa)) {
      throw std::invalid_argument("TEMPER_ISA=" + IsaName(isa) + ": this processor (" +
                                  CpuDescription() + ") lacks it; unset TEMPER_ISA");
    }
    return isa;
  }
  throw std::invalid_argument(std::string("TEMPER_ISA=") + name +
                              ": unknown variant; use scalar, avx2 or avx512");
}

std::string BrandName() {
  std::array<unsigned, 12> words{};
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0x80000000u, &a, &b, &c, &d) == 0 || a < 0x80000004u) return "unknown processor";
  for (unsigned leaf = 0; leaf < 3; ++leaf) {
    unsigned* w = &words[leaf * 4];
    __get_cpuid(0x80000002u + leaf, &w[0], &w[1], &w[2], &w[3]);
  }
  char text[49] = {};
  std::memcpy(text, words.data(), 48);
  std::string name(text);
  const auto first = name.find_first_not_of(' ');
  const auto last = name.find_last_not_of(' ');
  return first == std::string::npos ? "unknown processor" : name.substr(first, last - first + 1);
}

}  // namespace

Isa ActiveIsa() {
  int isa = active.load(std::memory_order_relaxed);
  if (isa < 0) {
    isa = static_cast<int>(Chosen());
    active.store(isa, std::memory_order_relaxed);
  }
  return static_cast<Isa>(isa);
}

bool Supports(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
  }
  return false;
}

bool HasVbmi() { return Supports(Isa::kAvx512) && __builtin_cpu_supports("avx512vbmi"); }

std::string IsaName(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

void ForceIsa(Isa isa) {
  if (!Supports(isa)) throw std::invalid_argument(IsaName(isa) + ": this processor lacks it");
  active.store(static_cast<int>(isa), std::memory_order_relaxed);
}

std::string CpuDescription() {
  std::string text = BrandName() + ",";
  if (__builtin_cpu_supports("avx2")) text += " AVX2";
  if (__builtin_cpu_supports("fma")) text += " FMA";
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0) text += " F16C";
  if (Supports(Isa::kAvx512)) text += " AVX-512";
  if (HasVbmi()) text += " VBMI";
  return text;
}

void CheckFloatingPointMode() {
  // The low six bits are sticky exception flags: history, not mode.
  constexpr unsigned kMode = 0xFFC0u, kDefault = 0x1F80u;
  const unsigned mode = _mm_getcsr() & kMode;
  if (mode == kDefault) return;
  char text[16];
  constexpr char kHex[] = "0123456789abcdef";
  for (int i = 0; i < 4; ++i) text[i] = kHex[(mode >> (12 - 4 * i)) & 15];
  text[4] = '\0';
  throw std::runtime_error(std::string("MXCSR of this thread is 0x") + text +
                           ", not the default 0x1f80: rounding or flush-to-zero would change "
                           "results; something set it (denormal flushing?)");
}

}  // namespace temper::kernels
