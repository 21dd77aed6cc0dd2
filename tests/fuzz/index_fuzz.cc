#include <filesystem>

#include "engine/safetensors.h"
#include "tests/fuzz/fuzz.h"

const char* const kFuzzWords[] = {"weight_map",          "../", "/etc/", "model-1.safetensors",
                                  "model-2.safetensors", "a.b", "c.d",   nullptr};

// The folder holds two shards; beside it lies a file that no index may reach.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace temper;
  static const std::string folder = [] {
    const std::string made = fuzz::Folder() + "/model";
    std::filesystem::create_directory(made);
    for (const auto& [path, name] : {std::pair(made + "/model-1.safetensors", "a.b"),
                                     {made + "/model-2.safetensors", "c.d"},
                                     {fuzz::Folder() + "/outside.safetensors", "secret"}}) {
      engine::SafetensorsWriter writer(path, {{name, engine::Dtype::kF32, {1}}});
      writer.WriteFloats(std::vector<float>{1});
      writer.Close();
    }
    return made;
  }();
  fuzz::Write(folder + "/model.safetensors.index.json",
              {reinterpret_cast<const char*>(data), size});
  fuzz::Refusing([&] {
    const engine::CheckpointReader reader(folder);
    fuzz::Require(!reader.Has("secret"), "a file outside of the folder was read");
    for (const std::string& name : reader.Names()) reader.ReadFloats(name);
  });
  return 0;
}
