#include "engine/data/rows.h"
#include "tests/fuzz/fuzz.h"

const char* const kFuzzWords[] = {
    "\"prompt\":",  "\"messages\":", "\"completion\":",  "\"role\":\"user\"",
    "\"content\":", "\"ids\":[1]",   "\"tools\":\"[]\"", "\"reward_model\":{\"ground_truth\":",
    "}\n{",         nullptr};

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace temper;
  const std::string path = fuzz::FileOf({reinterpret_cast<const char*>(data), size});
  for (const auto use : {engine::RowUse::kPrompt, engine::RowUse::kCompletion}) {
    fuzz::Refusing([&] {
      for (const engine::Row& row : engine::ReadRows(path, use, "", "")) {
        fuzz::Require(row.line > 0 && row.json.is_object(), "a row that is none");
      }
    });
  }
  return 0;
}
