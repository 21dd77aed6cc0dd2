#include "engine/tokenizer.h"
#include "tests/fuzz/fuzz.h"

const char* const kFuzzWords[] = {"\"Split\"",
                                  "\"Digits\"",
                                  "\"Sequence\"",
                                  "\\\\p{L}",
                                  "(?!",
                                  "(?i:",
                                  "[^",
                                  "{1,3}",
                                  "+",
                                  "*",
                                  "\"merges\"",
                                  "\"normalizers\"",
                                  "\"NFC\"",
                                  "\"Replace\"",
                                  "\"Prepend\"",
                                  "\"lstrip\":true",
                                  "\"single_word\":true",
                                  nullptr};

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace temper;
  const std::string folder = fuzz::Folder();
  fuzz::Write(folder + "/tokenizer.json", {reinterpret_cast<const char*>(data), size});
  fuzz::Refusing([&] {
    const engine::Tokenizer tokenizer(folder);
    for (const char* text :
         {"", "ab 12 ab<x>", "aaaaaaaaaaaaaaaaaaaaaaaaab \n\n  é漢😀e\u0301\u0323가각"}) {
      fuzz::Refusing([&] {
        const auto ids = tokenizer.Encode(text);
        for (const std::int32_t id : ids)
          fuzz::Require(id >= 0 && id < tokenizer.size(), "an id outside");
        tokenizer.Decode(ids, false);
      });
    }
    tokenizer.Decode({-1, 0, 1, 1 << 30}, true);
  });
  return 0;
}
