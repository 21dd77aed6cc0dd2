#include <cstring>

#include "engine/safetensors.h"
#include "tests/fuzz/fuzz.h"

const char* const kFuzzWords[] = {
    "\"dtype\":\"F32\"", "\"shape\":[", "\"data_offsets\":[0,4]", "BF16", "F8_E4M3",
    "__metadata__",      nullptr};

// The first byte says whether the length before the header is the input's or right.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace temper;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (size >= 8 && data[7] == 0) {
    const std::size_t close = bytes.rfind('}');
    const std::uint64_t length = close == bytes.npos || close < 8 ? 0 : close - 7;
    if (size % 2 == 0) std::memcpy(bytes.data(), &length, 8);
  }
  fuzz::Refusing([&] {
    const engine::SafetensorsFile file(fuzz::FileOf(bytes));
    for (const auto& [name, info] : file.tensors()) {
      fuzz::Require(info.end <= bytes.size() && info.begin <= info.end,
                    "a tensor outside its file");
      fuzz::Refusing([&] { file.ReadFloats(name); });
      fuzz::Refusing([&] { file.ReadInts(name); });
    }
  });
  return 0;
}
