#include <algorithm>
#include <cstring>
#include <vector>

#include "configs/error.h"
#include "configs/json.h"
#include "tests/fuzz/fuzz.h"
#include "wire/patch.h"
#include "wire/protocol.h"

const char* const kFuzzWords[] = {
    "\"name\":",   "\"dtype\":\"F32\"", "\"shape\":[",      "\"begin\":", "\"end\":", "\"sha256\":",
    "\"delta\":[", "[1,0,5]",           "\"delta_bytes\":", "\"base\":",  nullptr};

// First line: the manifest's header; second: its tensors; the rest: a patch.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace temper;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t first = std::min(input.find('\n'), input.size());
  const std::size_t second = std::min(input.find('\n', first + 1), input.size());
  const std::string_view patch = input.substr(std::min(second + 1, input.size()));
  wire::Message message;
  message.kind = static_cast<std::uint16_t>(wire::Kind::kWeightsManifest);
  try {
    message.header = configs::ParseJson(input.substr(0, first), "header");
    if (message.header.is_object()) {
      message.AddText(first < second ? input.substr(first + 1, second - first - 1) : "");
      const auto manifest = wire::WeightsManifest::Decode(message);
      std::uint64_t at = 0, delta_at = 0;
      for (const auto& t : manifest.tensors) {
        fuzz::Require(t.begin == at && t.end >= at, "tensors with a hole");
        fuzz::Require(!manifest.base || t.delta_begin == delta_at, "pieces with a hole");
        at = t.end;
        delta_at = t.delta_end;
      }
      fuzz::Require(at == manifest.bytes && delta_at == manifest.delta_bytes, "a wrong total");
    }
  } catch (const UserError&) {
  } catch (const wire::ProtocolError&) {
  }
  // Exactly as long as the array: a step outside is seen.
  const std::size_t width = size % 3 == 0 ? 1 : size % 3 == 1 ? 2 : 4;
  std::vector<std::byte> before(64 * width), bytes = before;
  if (wire::ApplyPatch(std::as_bytes(std::span(patch.data(), patch.size())), width, bytes)) {
    const auto made = wire::MakePatch(before, bytes, width, SIZE_MAX);
    std::vector<std::byte> again = before;
    fuzz::Require(made && wire::ApplyPatch(*made, width, again) && again == bytes,
                  "a patch that gives something else");
  }
  return 0;
}
