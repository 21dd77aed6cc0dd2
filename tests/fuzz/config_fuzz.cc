#include "configs/json.h"
#include "engine/model_config.h"
#include "tests/fuzz/fuzz.h"

const char* const kFuzzWords[] = {"num_hidden_layers",   "rope_scaling", "yarn",
                                  "quantization_config", "n_group",      nullptr};

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace temper;
  fuzz::Refusing([&] {
    const Json json =
        configs::ParseJson({reinterpret_cast<const char*>(data), size}, "config.json");
    const engine::ModelConfig config = engine::ParseModelConfig(json, "config.json");
    if (config.qk_rope_dim <= 1024) config.rope_frequencies();
    config.attention_scale();
  });
  return 0;
}
