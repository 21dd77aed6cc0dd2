#include "configs/sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace temper::configs {
namespace {

alignas(16) constexpr std::uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

void PortableBlock(std::uint32_t* state, const std::uint8_t* data) {
  std::uint32_t w[64];
  for (int i = 0; i < 16; ++i) {
    w[i] = std::uint32_t{data[4 * i]} << 24 | std::uint32_t{data[4 * i + 1]} << 16 |
           std::uint32_t{data[4 * i + 2]} << 8 | std::uint32_t{data[4 * i + 3]};
  }
  for (int i = 16; i < 64; ++i) {
    const std::uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ a >> 3) + w[i - 7] +
           (std::rotr(b, 17) ^ std::rotr(b, 19) ^ b >> 10);
  }
  std::uint32_t s[8];
  std::copy_n(state, 8, s);
  for (int i = 0; i < 64; ++i) {
    const std::uint32_t e = s[4], a = s[0];
    const std::uint32_t t1 = s[7] + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) +
                             ((e & s[5]) ^ (~e & s[6])) + kRound[i] + w[i];
    const std::uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) +
                             ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
    for (int j = 7; j > 0; --j) s[j] = s[j - 1];
    s[4] += t1;
    s[0] = t1 + t2;
  }
  for (int j = 0; j < 8; ++j) state[j] += s[j];
}

#if defined(__x86_64__)
bool HasShaInstructions() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & 1u << 29) == 0) return false;
  return __builtin_cpu_supports("sse4.1") != 0;
}

/// `count` blocks of each of L texts: what one waits for, another computes. The instructions keep
/// the state as (ABEF, CDGH) and take two rounds at a time.
template <int L>
__attribute__((target("sha,sse4.1"))) void HardwareBlocks(std::uint32_t* const* states,
                                                          const std::uint8_t* const* texts,
                                                          std::size_t count) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  __m128i abef[L], cdgh[L], abef_before[L], cdgh_before[L], w[L][4];
  for (int l = 0; l < L; ++l) {
    const auto* packed = reinterpret_cast<const __m128i*>(states[l]);
    const __m128i dcba = _mm_shuffle_epi32(_mm_loadu_si128(packed), 0xb1);
    const __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128(packed + 1), 0x1b);
    abef[l] = _mm_alignr_epi8(dcba, hgfe, 8);
    cdgh[l] = _mm_blend_epi16(hgfe, dcba, 0xf0);
  }
  for (std::size_t block = 0; block < count; ++block) {
#pragma GCC unroll 2
    for (int l = 0; l < L; ++l) {
      abef_before[l] = abef[l];
      cdgh_before[l] = cdgh[l];
      const auto* data = reinterpret_cast<const __m128i*>(texts[l] + 64 * block);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) w[l][i] = _mm_shuffle_epi8(_mm_loadu_si128(data + i), swap);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      const __m128i k = _mm_load_si128(reinterpret_cast<const __m128i*>(kRound) + i);
#pragma GCC unroll 2
      for (int l = 0; l < L; ++l) {
        const __m128i now = w[l][i & 3], sum = _mm_add_epi32(now, k);
        cdgh[l] = _mm_sha256rnds2_epu32(cdgh[l], abef[l], sum);
        abef[l] = _mm_sha256rnds2_epu32(abef[l], cdgh[l], _mm_shuffle_epi32(sum, 0x0e));
        if (i < 12) {  // w[i + 4] from w[i], w[i + 1], w[i + 2], w[i + 3]
          const __m128i last = w[l][(i + 3) & 3];
          __m128i next = _mm_sha256msg1_epu32(now, w[l][(i + 1) & 3]);
          next = _mm_add_epi32(next, _mm_alignr_epi8(last, w[l][(i + 2) & 3], 4));
          w[l][i & 3] = _mm_sha256msg2_epu32(next, last);
        }
      }
    }
#pragma GCC unroll 2
    for (int l = 0; l < L; ++l) {
      abef[l] = _mm_add_epi32(abef[l], abef_before[l]);
      cdgh[l] = _mm_add_epi32(cdgh[l], cdgh_before[l]);
    }
  }
  for (int l = 0; l < L; ++l) {
    auto* packed = reinterpret_cast<__m128i*>(states[l]);
    const __m128i feba = _mm_shuffle_epi32(abef[l], 0x1b);
    const __m128i dchg = _mm_shuffle_epi32(cdgh[l], 0xb1);
    _mm_storeu_si128(packed, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128(packed + 1, _mm_alignr_epi8(dchg, feba, 8));
  }
}
#endif

}  // namespace

Sha256::Sha256(Path path)
    : state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
             0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19} {
#if defined(__x86_64__)
  static const bool available = HasShaInstructions();
  hardware_ = available && path == Path::kFastest;
#else
  static_cast<void>(path);
#endif
}

void Sha256::Blocks(const std::uint8_t* data, std::size_t count) {
#if defined(__x86_64__)
  if (hardware_) {
    std::uint32_t* const state = state_.data();
    return HardwareBlocks<1>(&state, &data, count);
  }
#endif
  for (; count > 0; --count, data += 64) PortableBlock(state_.data(), data);
}

void Sha256::Add(std::span<const std::byte> data) {
  const auto* p = reinterpret_cast<const std::uint8_t*>(data.data());
  std::size_t n = data.size();
  total_ += n;
  if (tail_bytes_ > 0) {
    const std::size_t take = std::min(n, tail_.size() - tail_bytes_);
    std::copy_n(p, take, tail_.begin() + static_cast<std::ptrdiff_t>(tail_bytes_));
    tail_bytes_ += take;
    p += take;
    n -= take;
    if (tail_bytes_ < tail_.size()) return;
    Blocks(tail_.data(), 1);
    tail_bytes_ = 0;
  }
  Blocks(p, n / 64);
  tail_bytes_ = n % 64;
  std::copy_n(p + n - tail_bytes_, tail_bytes_, tail_.begin());
}

void Sha256::AddBoth(Sha256* a, const std::byte* from_a, Sha256* b, const std::byte* from_b,
                     std::size_t blocks) {
#if defined(__x86_64__)
  if (a->hardware_ && b->hardware_ && a->tail_bytes_ == 0 && b->tail_bytes_ == 0) {
    std::uint32_t* const states[] = {a->state_.data(), b->state_.data()};
    const std::uint8_t* const texts[] = {reinterpret_cast<const std::uint8_t*>(from_a),
                                         reinterpret_cast<const std::uint8_t*>(from_b)};
    HardwareBlocks<2>(states, texts, blocks);
    a->total_ += 64 * blocks;
    b->total_ += 64 * blocks;
    return;
  }
#endif
  a->Add({from_a, 64 * blocks});
  b->Add({from_b, 64 * blocks});
}

void Sha256::Add(std::string_view text) { Add(std::as_bytes(std::span(text.data(), text.size()))); }

std::string Sha256::Hex() {
  const std::uint64_t bits = total_ * 8;
  std::uint8_t end[72] = {0x80};
  const std::size_t pad = (tail_bytes_ < 56 ? 56 : 120) - tail_bytes_;
  for (std::size_t i = 0; i < 8; ++i)
    end[pad + i] = static_cast<std::uint8_t>(bits >> (56 - 8 * i));
  Add(std::as_bytes(std::span(end, pad + 8)));
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const std::uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) hex += kDigits[word >> shift & 15];
  }
  return hex;
}

std::string Sha256Hex(std::span<const std::byte> data) {
  Sha256 hash;
  hash.Add(data);
  return hash.Hex();
}

std::string Sha256Hex(std::string_view text) {
  return Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
}

std::vector<std::string> Sha256Hex(std::span<const std::span<const std::byte>> texts) {
  struct Lane {
    std::size_t text;
    Sha256 hash;
    std::span<const std::byte> rest;
  };
  std::vector<std::string> hex(texts.size());
  std::optional<Lane> lanes[2];
  std::size_t next = 0;
  while (true) {
    for (std::optional<Lane>& lane : lanes) {
      if (!lane && next < texts.size()) lane = {next, Sha256(), texts[next]}, ++next;
    }
    if (lanes[0] && lanes[1]) {
      const std::size_t blocks = std::min(lanes[0]->rest.size(), lanes[1]->rest.size()) / 64;
      Sha256::AddBoth(&lanes[0]->hash, lanes[0]->rest.data(), &lanes[1]->hash,
                      lanes[1]->rest.data(), blocks);
      for (std::optional<Lane>& lane : lanes) lane->rest = lane->rest.subspan(64 * blocks);
    }
    // The one with less than a block left, or the last one, ends alone.
    const bool second = !lanes[0] || (lanes[1] && lanes[1]->rest.size() < lanes[0]->rest.size());
    std::optional<Lane>& ends = lanes[second];
    if (!ends) return hex;
    ends->hash.Add(ends->rest);
    hex[ends->text] = ends->hash.Hex();
    ends.reset();
  }
}

}  // namespace temper::configs
