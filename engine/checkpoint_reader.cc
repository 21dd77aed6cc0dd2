// All tensors of a model folder, one file or shards under an index.
#include <string>
#include <utility>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/json.h"
#include "engine/safetensors.h"

namespace temper::engine {
namespace {

using configs::Quote;

constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr std::size_t kMaxFileName = 255;

// A name directly inside the model folder: whatever the index says, nothing outside is opened.
void CheckFileName(const std::string& index, const std::string& name) {
  const bool bad = name.empty() || name.size() > kMaxFileName || name[0] == '.' ||
                   name.find_first_of(std::string_view("/\\:\0", 4)) != name.npos;
  if (bad || name.size() < 12 || name.substr(name.size() - 12) != ".safetensors") {
    throw UserError(index + ": file name " + Quote(name) +
                    " must be a *.safetensors file directly in the model folder");
  }
}

}  // namespace

struct CheckpointReader::State {
  std::string dir;
  std::map<std::string, SafetensorsFile> files;           // by file name
  std::map<std::string, const SafetensorsFile*> tensors;  // by tensor name

  const SafetensorsFile& File(const std::string& name) const {
    const auto it = tensors.find(name);
    if (it == tensors.end()) throw UserError(dir + ": there is no tensor " + Quote(name));
    return *it->second;
  }

  void ReadIndex(const std::string& path) {
    configs::JsonLimits limits;
    limits.max_bytes = std::size_t{64} << 20;
    limits.max_values = 1'000'000;  // DeepSeek-V3 has 91,000 tensors
    const Json index = configs::ReadJsonFile(dir, kIndexName, limits);
    const auto map = index.find("weight_map");
    if (map == index.end() || !map->is_object()) {
      throw UserError(path + ": weight_map is missing: it must map tensor names to files");
    }
    for (const auto& [tensor, value] : map->items()) {
      if (!value.is_string()) {
        throw UserError(path + ": weight_map: " + Quote(tensor) + " must name a file");
      }
      const std::string& name = value.get_ref<const std::string&>();
      auto it = files.find(name);
      if (it == files.end()) {
        CheckFileName(path, name);
        it = files.emplace(name, SafetensorsFile(configs::InputFile(dir, name))).first;
      }
      if (!it->second.Has(tensor)) {
        throw UserError(path + ": weight_map: tensor " + Quote(tensor) + " is not in " + name);
      }
      tensors.emplace(tensor, &it->second);
    }
    // A tensor the index leaves out would be ignored by some readers and loaded by others.
    for (const auto& [name, file] : files) {
      for (const auto& [tensor, info] : file.tensors()) {
        const auto it = tensors.find(tensor);
        if (it == tensors.end()) {
          throw UserError(path + ": weight_map leaves out tensor " + Quote(tensor) + " of " + name);
        }
        if (it->second != &file) {
          throw UserError(path + ": tensor " + Quote(tensor) + " is in " + name + " too");
        }
      }
    }
  }
};

CheckpointReader::CheckpointReader(const std::string& model_dir)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.dir = model_dir;
  const std::string single = model_dir + "/" + kSingleName, index = model_dir + "/" + kIndexName;
  if (configs::Exists(index)) {
    s.ReadIndex(index);
    if (configs::Exists(single) && s.files.count(kSingleName) == 0) {
      throw UserError(model_dir +
                      ": holds both model.safetensors and model.safetensors.index.json: which "
                      "weights are meant? Remove one");
    }
    return;
  }
  if (!configs::Exists(single)) {
    throw UserError(model_dir +
                    ": no weights: model.safetensors or model.safetensors.index.json is needed");
  }
  const auto it =
      s.files.emplace(kSingleName, SafetensorsFile(configs::InputFile(model_dir, kSingleName)))
          .first;
  for (const auto& [name, info] : it->second.tensors()) s.tensors.emplace(name, &it->second);
}

CheckpointReader::~CheckpointReader() = default;

bool CheckpointReader::Has(const std::string& name) const {
  return state_->tensors.count(name) != 0;
}

const TensorInfo& CheckpointReader::Info(const std::string& name) const {
  return File(name).tensors().at(name);
}

std::vector<std::string> CheckpointReader::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : state_->tensors) names.push_back(name);
  return names;
}

std::vector<float> CheckpointReader::ReadFloats(const std::string& name) const {
  return File(name).ReadFloats(name);
}

const SafetensorsFile& CheckpointReader::File(const std::string& name) const {
  return state_->File(name);
}

}  // namespace temper::engine
