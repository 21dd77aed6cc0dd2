#pragma once
// tokenizer.json: byte-level BPE of the DeepSeek family, text to ids and back.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/template.h"

namespace temper::engine {

class Tokenizer {
 public:
  /// Reads tokenizer.json and tokenizer_config.json (optional) of a folder. Throws UserError naming
  /// the unsupported part.
  explicit Tokenizer(const std::string& dir);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  /// Text to ids; added tokens in the text are recognised; no BOS or EOS is added.
  /// Invalid UTF-8 is a UserError. A character that the vocabulary can't spell is a UserError
  /// naming it.
  std::vector<std::int32_t> Encode(std::string_view text) const;
  /// Ids to text, special tokens included or left out; invalid UTF-8 becomes U+FFFD as in Hugging
  /// Face's decoder.
  std::string Decode(const std::vector<std::int32_t>& ids, bool skip_special) const;
  /// The raw bytes of one token ("" for special ones): for stop strings and streaming.
  std::string TokenBytes(std::int32_t id) const;

  /// The raw bytes that a token decodes to; "" for unknown ids, and for special ones if they are
  /// skipped.
  std::string_view Bytes(std::int32_t id, bool skip_special) const;

  bool add_bos() const;         // tokenizer_config.json add_bos_token
  std::int32_t bos_id() const;  // -1: none
  std::int32_t eos_id() const;  // -1: none
  std::int32_t pad_id() const;  // -1: none
  bool IsSpecial(std::int32_t id) const;
  int size() const;  // ids are [0, size()); the model's vocabulary may be larger

  /// A prompt string as the model sees it: BOS iff add_bos(), then Encode.
  std::vector<std::int32_t> EncodePrompt(std::string_view text) const;

  /// The chat templates of the folder, read when first asked for. Throws UserError if it has none.
  const ChatTemplates& chat() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::engine
