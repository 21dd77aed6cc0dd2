#include "tests/simt/warp.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/bf16.h"
#include "kernels/fp8.h"
#include "tests/simt/simt.h"

namespace simt {
namespace {

/// Toward zero, unlike a conversion.
float Truncated(double x) {
  const float nearest = static_cast<float>(x);
  if (std::fabs(static_cast<double>(nearest)) <= std::fabs(x)) return nearest;
  return std::nextafter(nearest, 0.0f);
}

struct Fragments {
  float* d;
  const std::uint32_t *a, *b;
};

double Bf16At(const std::uint32_t* words, int element) {
  const std::uint32_t bits = words[element / 2] >> (element % 2 * 16) & 0xFFFFu;
  return static_cast<double>(temper::kernels::DecodeBf16(static_cast<std::uint16_t>(bits)));
}

double E4m3At(const std::uint32_t* words, int element) {
  const std::uint32_t bits = words[element / 4] >> (element % 4 * 8) & 0xFFu;
  return static_cast<double>(temper::kernels::DecodeE4m3(static_cast<std::uint8_t>(bits)));
}

/// `word` elements share a register: 2 of BF16, 4 of E4M3. Register i of A holds rows
/// lane / 4 + 8 (i % 2) and columns from word * (lane % 4 + 4 (i / 2)); B's likewise by columns.
template <int word, double (*at)(const std::uint32_t*, int)>
void ResolveMma(void* const* data, std::uint32_t) {
  constexpr int k = 8 * word;
  double a[16][k], b[k][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const Fragments& f = *static_cast<const Fragments*>(data[lane]);
    const int group = lane / 4, column = lane % 4 * word;
    for (int e = 0; e < 4 * word; ++e) {
      const int i = e / word;
      a[group + 8 * (i % 2)][column + e % word + 4 * word * (i / 2)] = at(f.a, e);
    }
    for (int e = 0; e < 2 * word; ++e) {
      b[column + e % word + 4 * word * (e / word)][group] = at(f.b, e);
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    const Fragments& f = *static_cast<const Fragments*>(data[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
      double sum = static_cast<double>(f.d[i]);
      for (int j = 0; j < k; ++j) sum += a[row][j] * b[j][column];
      f.d[i] = Truncated(sum);
    }
  }
}

struct Load {
  std::uint32_t* r;
  const unsigned char* row;
};

template <bool transposed>
void ResolveLoad(void* const* data, std::uint32_t) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    std::uint16_t element[8][8];
    for (int row = 0; row < 8; ++row) {
      std::memcpy(element[row], static_cast<const Load*>(data[8 * matrix + row])->row, 16);
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      const int i = lane / 4, j = lane % 4 * 2;
      const std::uint32_t low = transposed ? element[j][i] : element[i][j];
      const std::uint32_t high = transposed ? element[j + 1][i] : element[i][j + 1];
      static_cast<const Load*>(data[lane])->r[matrix] = low | high << 16;
    }
  }
}

void CheckAligned(const void* address, const char* what, std::source_location where) {
  if (std::bit_cast<std::uintptr_t>(address) % 16 != 0) {
    Fail(std::string(what) + " of an address that is not a multiple of 16", where);
  }
}

constexpr std::uint32_t kAll = 0xFFFFFFFFu;

}  // namespace

void MmaBf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
             std::source_location where) {
  Fragments mine{d, a, b};
  Collective(ResolveMma<2, Bf16At>, kAll, &mine, where);
}

void MmaE4m3(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
             std::source_location where) {
  Fragments mine{d, a, b};
  Collective(ResolveMma<4, E4m3At>, kAll, &mine, where);
}

void LoadMatrix(std::uint32_t (&r)[4], const void* row, std::source_location where) {
  CheckAligned(row, "ldmatrix", where);
  Load mine{r, static_cast<const unsigned char*>(row)};
  Collective(ResolveLoad<false>, kAll, &mine, where);
}

void LoadMatrixTransposed(std::uint32_t (&r)[4], const void* row, std::source_location where) {
  CheckAligned(row, "ldmatrix", where);
  Load mine{r, static_cast<const unsigned char*>(row)};
  Collective(ResolveLoad<true>, kAll, &mine, where);
}

void CopyAsync(void* shared, const void* global, int valid, std::source_location where) {
  CheckAligned(shared, "cp.async", where);
  CheckAligned(global, "cp.async", where);
  if (valid < 0 || valid > 16) Fail("cp.async of " + std::to_string(valid) + " bytes", where);
  self->open.push_back({shared, global, 16, valid});
}

void CopyCommit() {
  self->committed.push_back(std::move(self->open));
  self->open.clear();
}

void CopyWait(int pending) {
  while (self->committed.size() > static_cast<std::size_t>(pending)) {
    for (const Copy& copy : self->committed.front()) {
      std::memset(copy.to, 0, static_cast<std::size_t>(copy.bytes));
      std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.valid));
    }
    self->committed.erase(self->committed.begin());
  }
}

}  // namespace simt
