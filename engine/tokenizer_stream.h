#pragma once
// Text of tokens as they come: a character is given out when its last byte is there.
#include <cstdint>
#include <string>

#include "engine/tokenizer.h"

namespace temper::engine {

/// What Add and Finish give, put together, is Tokenizer::Decode of all ids.
class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  /// The text that is certain after one more token; "" while a character is not whole.
  std::string Add(std::int32_t id);
  /// What is left: U+FFFD for a character that stayed unfinished.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::string pending_;  // the beginning of a character: three bytes at most
};

}  // namespace temper::engine
