#include "learner/checkpoint.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <vector>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/sha256.h"
#include "engine/checkpoint.h"
#include "engine/safetensors.h"
#include "kernels/linear.h"

namespace temper::learner {

namespace {

namespace fs = std::filesystem;
constexpr const char* kParts[] = {"master.", "exp_avg.", "exp_avg_sq."};

using Tensors = std::vector<TrainedBuffers::Tensor>;
using Buffers = std::vector<std::pair<std::string, const float*>>;  // prefix of the names, values

void WriteBuffers(const std::string& path, const Tensors& tensors, const Buffers& buffers) {
  std::vector<engine::SafetensorsWriter::Entry> entries;
  for (const auto& [part, buffer] : buffers) {
    for (const auto& tensor : tensors)
      entries.push_back({part + tensor.name, engine::Dtype::kF32, tensor.shape});
  }
  engine::SafetensorsWriter writer(path, std::move(entries));
  for (const auto& [part, buffer] : buffers) {
    for (const auto& tensor : tensors)
      writer.WriteFloats({buffer + tensor.offset, std::size_t(tensor.count())});
  }
  writer.Close();
}

/// Floats [begin, end) of the flat layout.
struct Stretch {
  std::string prefix;  // of the tensors' names
  float* values;       // from `begin` on
  std::int64_t begin, end;
};

void ReadBuffers(const std::string& path, const Tensors& tensors,
                 const std::vector<Stretch>& stretches) {
  const engine::SafetensorsFile file(path);
  std::vector<float> whole;
  for (const Stretch& stretch : stretches) {
    for (const auto& tensor : tensors) {
      const std::string name = stretch.prefix + tensor.name;
      const auto info = file.tensors().find(name);
      if (info == file.tensors().end() || info->second.dtype != engine::Dtype::kF32 ||
          info->second.shape != tensor.shape) {
        throw UserError(file.path() + ": " + name +
                        " is missing or has another shape than the model's");
      }
      const std::int64_t first = std::max(stretch.begin, tensor.offset),
                         last = std::min(stretch.end, tensor.offset + tensor.count());
      if (first >= last) continue;
      whole.resize(std::size_t(tensor.count()));
      file.Read(name, std::as_writable_bytes(std::span(whole)));
      std::copy_n(whole.data() + (first - tensor.offset), last - first,
                  stretch.values + (first - stretch.begin));
    }
  }
}

std::string HashOf(const TrainedBuffers& trained) {
  return configs::Sha256Hex(
             std::as_bytes(std::span<const float>(trained.values, std::size_t(trained.size))))
      .substr(0, 16);
}

}  // namespace

Snapshot::Snapshot(Policy& policy, const std::string& model_dir, const Parameters* reference,
                   Communicator* ranks)
    : policy_(policy), model_dir_(model_dir), trained_(policy.trained()) {
  Communicator alone;
  if (!ranks) ranks = &alone;
  ranks->FollowRoot();  // it may have written an older one until now
  if (!ranks->alone()) ranks->MustAgree("the hash of the weights", HashOf(trained_));
  if (ranks->root()) {
    moment1_.resize(std::size_t(trained_.size));
    moment2_.resize(std::size_t(trained_.size));
  }
  ranks->ToRoot(trained_.moment1, trained_.size, moment1_.data());
  ranks->ToRoot(trained_.moment2, trained_.size, moment2_.data());
  if (!ranks->root()) return;
  const Published& published = policy.published();
  for (const Published::Tensor& tensor : published.tensors()) {
    const std::span<const std::byte> bytes = published.Bytes(tensor);
    published_.insert(published_.end(), bytes.begin(), bytes.end());
  }
  values_.assign(trained_.values, trained_.values + trained_.size);
  if (reference) reference_.assign(reference->values(), reference->values() + reference->size());
}

/// The published bytes as they are: fp32 scales keep codes unchanged.
void Snapshot::WriteModel(const std::string& dir) const {
  const Published& published = policy_.published();  // its table alone
  std::map<std::string, const Published::Tensor*> tensors;
  for (const Published::Tensor& tensor : published.tensors()) tensors[tensor.name] = &tensor;
  std::vector<float> copy;  // tensors lie without gaps: floats may start anywhere
  const auto floats = [&](const Published::Tensor& t, std::size_t from, std::size_t n) {
    copy.resize(n);
    std::memcpy(copy.data(), published_.data() + t.begin + from * sizeof(float), n * sizeof(float));
    return std::span<const float>(copy);
  };
  const engine::RowSource rows = [&](const engine::TensorSpec& spec, std::int64_t first,
                                     std::int64_t count) {
    const Published::Tensor& tensor = *tensors.at(spec.name);
    const std::size_t k = std::size_t(engine::Columns(spec)), at = std::size_t(first) * k,
                      n = std::size_t(count) * k;
    engine::RowData data;
    data.first = first;
    data.rows = count;
    const std::byte* bytes = published_.data() + tensor.begin;
    if (tensor.dtype == engine::Dtype::kF8E4m3) {
      const std::size_t blocks = (k + kernels::kBlock - 1) / kernels::kBlock;
      data.codes = {reinterpret_cast<const std::uint8_t*>(bytes) + at, n};
      data.scales = floats(*tensors.at(spec.name + "_scale_inv"),
                           std::size_t(first) / kernels::kBlock * blocks, blocks);
    } else if (tensor.dtype == engine::Dtype::kBf16) {
      data.bf16 = {reinterpret_cast<const std::uint16_t*>(bytes) + at, n};
    } else {
      data.values = floats(tensor, at, n);
    }
    return data;
  };
  const engine::Numerics& numerics = policy_.weights().numerics();
  const engine::Dtype dtype = numerics.fp8()      ? engine::Dtype::kF8E4m3
                              : numerics.rounds() ? engine::Dtype::kBf16
                                                  : engine::Dtype::kF32;
  engine::WriteCheckpoint(dir, policy_.config(), {dtype}, model_dir_, rows);
}

void Snapshot::Write(const std::string& dir) const {
  WriteModel(dir);
  WriteBuffers(
      dir + "/optimizer.safetensors", *trained_.tensors,
      {{kParts[0], values_.data()}, {kParts[1], moment1_.data()}, {kParts[2], moment2_.data()}});
  if (const Lora* lora = policy_.lora()) {
    const std::string adapter = dir + "/adapter";
    std::error_code error;
    fs::create_directory(adapter, error);
    if (error) throw MachineError(adapter + ": cannot be made: " + error.message());
    lora->Write(adapter, model_dir_, values_.data());
    configs::SyncFolder(adapter);
  }
  if (!reference_.empty()) {
    WriteBuffers(dir + "/reference.safetensors", *policy_.parameters().buffers().tensors,
                 {{kParts[0], reference_.data()}});
  }
}

CheckpointSaver::~CheckpointSaver() {
  if (writing_.valid()) writing_.wait();
}

void CheckpointSaver::Save(const TrainState& state, std::shared_ptr<const Snapshot> snapshot) {
  writing_ = std::async(
      std::launch::async, [this, state, snapshot = std::move(snapshot)]() mutable -> Saved {
        const std::string name =
            WriteCheckpointFolder(run_dir_, state, keep_, [&](const std::string& aside) {
              snapshot->Write(aside);
              snapshot.reset();
            });
        return {state.step, name};
      });
}

std::optional<CheckpointSaver::Saved> CheckpointSaver::Take(bool wait) {
  if (!writing_.valid()) return {};
  if (!wait && writing_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return {};
  return writing_.get();
}

void Restore(const std::string& dir, const std::string& model_dir, Policy& policy) {
  const TrainedBuffers trained = policy.trained();
  if (Lora* lora = policy.lora()) {
    policy.Load(model_dir);
    lora->SetBase(policy.parameters());
  }
  const std::int64_t begin = trained.shard.begin(trained.size),
                     end = trained.shard.end(trained.size);
  ReadBuffers(dir + "/optimizer.safetensors", *trained.tensors,
              {{kParts[0], trained.values, 0, trained.size},
               {kParts[1], trained.moment1, begin, end},
               {kParts[2], trained.moment2, begin, end}});
  if (Lora* lora = policy.lora()) lora->Merge(policy.parameters(), policy.pool());
  policy.Load(dir, /*masters=*/false);
}

void LoadReference(const std::string& dir, Parameters& parameters) {
  ReadBuffers(dir + "/reference.safetensors", *parameters.buffers().tensors,
              {{kParts[0], parameters.values(), 0, parameters.size()}});
}

void SaveVersion(const std::string& run_dir, std::uint32_t version, const Published& published) {
  WriteVersionFile(run_dir, version, [&](const std::string& aside) {
    std::vector<engine::SafetensorsWriter::Entry> entries;
    for (const Published::Tensor& tensor : published.tensors())
      entries.push_back({tensor.name, tensor.dtype, tensor.shape});
    engine::SafetensorsWriter writer(aside, std::move(entries));
    for (const Published::Tensor& tensor : published.tensors())
      writer.Write(published.Bytes(tensor));
    writer.Close();
  });
}

}  // namespace temper::learner
