#include "engine/weights.h"

#include <algorithm>

#include "configs/error.h"
#include "engine/checkpoint.h"
#include "engine/weight_slot.h"
#include "kernels/bf16.h"

namespace temper::engine {
namespace {

using kernels::kBlock;

constexpr std::int64_t kChunkBytes = std::int64_t{256} << 10;

int Blocks(int n) { return (n + kBlock - 1) / kBlock; }

}  // namespace

void Weights::SetVector(std::vector<float>& out, const float* values, bool rounds) const {
  std::copy_n(values, out.size(), out.begin());
  if (rounds && numerics_.rounds()) kernels::RoundBf16(out.data(), std::int64_t(out.size()));
}

void Weights::Embed(std::int32_t id, float* out) const {
  const std::int64_t h = config_.hidden_size;
  if (!numerics_.rounds()) {
    std::copy_n(embedding_.data() + id * h, h, out);
  } else {
    kernels::DecodeBf16(embedding_bf16() + id * h, h, out);
  }
}

void Weights::Set(const std::string& name, const TensorData& data) {
  const auto it = slots_.find(name);
  if (it == slots_.end()) throw UserError("weights: " + name + " is no tensor of this model");
  Slot& slot = *it->second;
  const bool coded = !data.codes.empty();
  const std::size_t given = coded ? data.codes.size() : data.values.size();
  if (given != slot.count()) {
    throw UserError("weights: " + name + " has " + std::to_string(given) +
                    " values, the config wants " + std::to_string(slot.count()));
  }
  if (coded) {
    const std::size_t blocks = std::size_t(Blocks(slot.rows)) * Blocks(slot.k);
    if (data.scales.size() != blocks) {
      throw UserError("weights: " + name + " has " + std::to_string(data.scales.size()) +
                      " scales, its blocks of 128 x 128 are " + std::to_string(blocks));
    }
    const std::string bad =
        kernels::CheckFp8Weight(data.codes.data(), slot.k, slot.rows, slot.k, data.scales.data());
    if (!bad.empty()) throw UserError("weights: " + name + ": " + bad);
  }
  Put(slot, {0, slot.rows, data.values, {}, data.codes, data.scales});
  slot.set = true;
}

void Weights::Put(const Slot& slot, const RowData& data) {
  const int first = int(data.first), rows = int(data.rows), k = slot.k;
  if (!data.codes.empty() && slot.put_codes) {
    return slot.put_codes(*this, first, rows, data.codes.data(), data.scales.data());
  }
  if (!data.bf16.empty() && slot.put_bf16) {
    return slot.put_bf16(*this, first, rows, data.bf16.data());
  }
  kernels::ThreadPool pool(1);
  std::unique_ptr<float[]> decoded;  // not zeroed first
  const float* values = data.values.data();
  if (data.values.empty()) {
    const std::size_t count = std::size_t(rows) * k;
    decoded = std::make_unique_for_overwrite<float[]>(count);
    values = decoded.get();
    if (!data.bf16.empty()) {
      kernels::DecodeBf16(data.bf16.data(), std::int64_t(count), decoded.get());
    } else {
      kernels::DequantizeWeight(data.codes.data(), k, rows, k, data.scales.data(), decoded.get(), k,
                                pool);
    }
  }
  if (!slot.put_codes) return slot.put(*this, first, rows, values);
  std::vector<std::uint8_t> codes(std::size_t(rows) * k);
  std::vector<float> scales(std::size_t(Blocks(rows)) * Blocks(k));
  kernels::QuantizeWeight(values, k, rows, k, numerics_.scale, codes.data(), k, scales.data(),
                          pool);
  slot.put_codes(*this, first, rows, codes.data(), scales.data());
}

bool Weights::TakesCodes(const std::string& name) const {
  const auto it = slots_.find(name);
  return it != slots_.end() && it->second->put_codes != nullptr;
}

void Weights::CheckComplete() const {
  std::string missing;
  int count = 0;
  for (const auto& [name, slot] : slots_) {
    if (slot->set) continue;
    if (++count <= 8) missing += (missing.empty() ? "" : ", ") + name;
  }
  if (count > 0) {
    throw UserError("weights: " + std::to_string(count) + " tensors were never given: " + missing +
                    (count > 8 ? ", ..." : ""));
  }
}

namespace {

std::size_t Bytes(const PackedLinear& p) { return p.storage.size() + p.scale.size() * 4; }
std::size_t Bytes(const MlpWeights& m) { return Bytes(m.gate_up) + Bytes(m.up) + Bytes(m.down); }

std::size_t DenseBytes(const LayerWeights& l) {
  std::size_t total = Bytes(l.mlp) + Bytes(l.shared);
  for (const PackedLinear* p : {&l.q, &l.q_a, &l.q_b, &l.kv_a, &l.o, &l.router, &l.eh})
    total += Bytes(*p);
  for (const PackedLinear& p : l.w_uk) total += Bytes(p);
  for (const PackedLinear& p : l.w_uv) total += Bytes(p);
  return total;
}

}  // namespace

std::size_t Weights::bytes() const {
  std::size_t total = embedding_.size() * 4 + embedding_bf16_.size() + Bytes(head_);
  for (const LayerWeights& l : layers_) {
    total += DenseBytes(l);
    for (const MlpWeights& m : l.experts) total += Bytes(m);
  }
  return total;
}

double Weights::StepBytes(int rows) const {
  double total = double(Bytes(head_)), missed = 1;
  for (int r = 0; r < rows; ++r) missed *= 1 - double(config_.top_k) / config_.experts;
  for (int i = 0; i < config_.num_layers; ++i) {
    total += double(DenseBytes(layers_[i]));
    for (const MlpWeights& m : layers_[i].experts) total += (1 - missed) * double(Bytes(m));
  }
  return total;
}

Weights Weights::Load(const std::string& model_dir, const ModelConfig& config,
                      const Numerics& numerics) {
  CheckpointRows files(model_dir, config);  // before memory is taken: a wrong folder costs none
  Weights weights(config, numerics);
  for (std::size_t i = 0; i < files.specs().size(); ++i) {
    Slot& slot = *weights.slots_.at(files.specs()[i].name);
    int step = kBlock;
    if (slot.whole) {
      step = slot.rows;
    } else if (!files.coded(i) && !slot.put_codes) {
      // Whole panels that stay in the second-level cache between reading and packing.
      step = std::max(kernels::kPanel,
                      int(kChunkBytes / files.RowBytes(i)) / kernels::kPanel * kernels::kPanel);
    }
    for (int first = 0; first < slot.rows; first += step) {
      weights.Put(slot, files.Read(i, first, std::min(step, slot.rows - first)));
    }
    slot.set = true;
  }
  weights.CheckComplete();
  return weights;
}

}  // namespace temper::engine
