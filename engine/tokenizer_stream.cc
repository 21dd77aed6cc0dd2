#include "engine/tokenizer_stream.h"

#include <utility>

#include "engine/utf8.h"

namespace temper::engine {

std::string TextStream::Add(std::int32_t id) {
  pending_ += tokenizer_.Bytes(id, skip_special_);
  const std::size_t whole = pending_.size() - UnfinishedBytes(pending_);
  std::string text = LossyUtf8(std::string_view(pending_).substr(0, whole));
  pending_.erase(0, whole);
  return text;
}

std::string TextStream::Finish() { return LossyUtf8(std::exchange(pending_, {})); }

}  // namespace temper::engine
