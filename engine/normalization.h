#pragma once
// Unicode's canonical normal forms, as Hugging Face's tokenizers computes them.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace temper::engine {

/// Valid UTF-8, decomposed and ordered; Nfc composes it again.
std::string Nfd(std::string_view text);
std::string Nfc(std::string_view text);

/// What is known of characters beside Hangul, each in ascending order; the lists are flat.
struct CompositionTables {
  std::span<const std::uint32_t> pairs;     // composed, first, second
  std::span<const std::uint32_t> excluded;  // of these what is never composed again
  std::span<const std::uint32_t> singles;   // blocks: the first, how many, what each becomes
  std::span<const std::uint32_t> classes;   // first, last, combining class
};
const CompositionTables& UnicodeCompositions();

}  // namespace temper::engine
