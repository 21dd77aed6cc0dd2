#include "engine/tokenizer.h"
#include "engine/tokenizer_stream.h"
#include "engine/utf8.h"
#include "tests/fuzz/fuzz.h"

const char* const kFuzzWords[] = {
    "  ", "\t\n", "'s", "漢字", "123", "\xE2\x80\xA8", "<｜begin▁of▁sentence｜>", nullptr};

// Any text comes back from its ids; any bytes are refused or come back.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace temper;
  static const engine::Tokenizer tokenizer(TEMPER_SOURCE_DIR "/configs/tokenizers/bytes");
  const std::string text(reinterpret_cast<const char*>(data), size);
  const bool valid = engine::FindInvalidUtf8(text) == text.npos;
  fuzz::Require(engine::FindInvalidUtf8(engine::LossyUtf8(text)) == text.npos,
                "a repair left something broken");
  bool refused = true;
  fuzz::Refusing([&] {
    const auto ids = tokenizer.Encode(text);
    refused = false;
    fuzz::Require(tokenizer.Decode(ids, false) == text, "a text does not come back");
    engine::TextStream stream(tokenizer, false);
    std::string streamed;
    for (const std::int32_t id : ids) streamed += stream.Add(id);
    fuzz::Require(streamed + stream.Finish() == text, "a streamed text does not come back");
  });
  fuzz::Require(refused == !valid, "valid text was refused or broken text was not");
  return 0;
}
