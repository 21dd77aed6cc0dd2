#include "learner/published.h"

#include <algorithm>
#include <cstring>

#include "kernels/bf16.h"
#include "kernels/fp8.h"
#include "kernels/linear.h"

namespace temper::learner {

namespace {

using engine::Dtype;

std::int64_t Blocks(std::int64_t n) { return (n + kernels::kBlock - 1) / kernels::kBlock; }

}  // namespace

Published::Published(Parameters& parameters, engine::Weights& weights)
    : parameters_(parameters), weights_(weights) {
  std::uint64_t at = 0;
  const auto add = [&](std::string name, Dtype dtype, std::vector<std::int64_t> shape) {
    std::uint64_t count = engine::DtypeSize(dtype);
    for (std::int64_t n : shape) count *= std::uint64_t(n);
    tensors_.push_back({std::move(name), dtype, std::move(shape), at, at + count});
    at += count;
  };
  const bool rounds = weights.numerics().rounds();
  for (const Parameters::Entry& entry : parameters.entries()) {
    const engine::TensorSpec& spec = entry.spec;
    const bool coded = weights.TakesCodes(spec.name);
    slots_.push_back({tensors_.size(), coded});
    // The router's bias is no part of a product: no mode rounds it.
    const bool full = !rounds || spec.kind == engine::TensorSpec::Kind::kRouterBias;
    add(spec.name, coded ? Dtype::kF8E4m3 : full ? Dtype::kF32 : Dtype::kBf16, spec.shape);
    if (coded)
      add(spec.name + "_scale_inv", Dtype::kF32, {Blocks(spec.shape[0]), Blocks(spec.shape[1])});
  }
  if (!rounds) return;
  bytes_.resize(at);
  values_ = engine::AlignedFloats(std::size_t(parameters.size()));
}

const std::byte* Published::bytes() const {
  return bytes_.empty() ? reinterpret_cast<const std::byte*>(parameters_.values()) : bytes_.data();
}

std::span<float> Published::Values(std::size_t entry) {
  const Parameters::Entry& e = parameters_.entries()[entry];
  return {values() + e.offset, std::size_t(e.spec.count())};
}

void Published::Round(std::size_t entry) {
  const Parameters::Entry& e = parameters_.entries()[entry];
  const std::span<const float> master = parameters_.Value(e);
  const Slot& slot = slots_[entry];
  if (bytes_.empty()) return weights_.Set(e.spec.name, master);
  std::byte* out = bytes_.data() + tensors_[slot.tensor].begin;
  const std::span<float> values = Values(entry);
  if (slot.coded) {
    kernels::ThreadPool pool(1);
    const int n = int(e.spec.shape[0]), k = int(e.spec.shape[1]);
    std::vector<float> scales(std::size_t(Blocks(n) * Blocks(k)));
    kernels::QuantizeWeight(master.data(), k, n, k, weights_.numerics().scale,
                            reinterpret_cast<std::uint8_t*>(out), k, scales.data(), pool);
    std::memcpy(bytes_.data() + tensors_[slot.tensor + 1].begin, scales.data(),
                scales.size() * sizeof(float));
    return PackCodes(entry);
  }
  if (tensors_[slot.tensor].dtype == Dtype::kBf16) {
    std::vector<std::uint16_t> codes(master.size());
    kernels::EncodeBf16(master.data(), std::int64_t(master.size()), codes.data());
    std::memcpy(out, codes.data(), codes.size() * sizeof(std::uint16_t));
    kernels::DecodeBf16(codes.data(), std::int64_t(codes.size()), values.data());
  } else {
    std::memcpy(out, master.data(), master.size_bytes());
    std::copy(master.begin(), master.end(), values.begin());
  }
  weights_.Set(e.spec.name, values);
}

void Published::Take(std::size_t entry, const engine::TensorData& data) {
  const Slot& slot = slots_[entry];
  if (!slot.coded || data.codes.empty()) return Round(entry);
  std::memcpy(bytes_.data() + tensors_[slot.tensor].begin, data.codes.data(), data.codes.size());
  std::memcpy(bytes_.data() + tensors_[slot.tensor + 1].begin, data.scales.data(),
              data.scales.size_bytes());
  PackCodes(entry);
}

void Published::PackCodes(std::size_t entry) {
  const engine::TensorSpec& spec = parameters_.entries()[entry].spec;
  const Tensor& tensor = tensors_[slots_[entry].tensor];
  const Tensor& scale = tensors_[slots_[entry].tensor + 1];
  const auto* codes = reinterpret_cast<const std::uint8_t*>(bytes_.data() + tensor.begin);
  std::vector<float> scales((scale.end - scale.begin) / sizeof(float));
  std::memcpy(scales.data(), bytes_.data() + scale.begin, scales.size() * sizeof(float));
  weights_.Set(spec.name, {{}, {codes, tensor.end - tensor.begin}, scales});
  kernels::ThreadPool pool(1);
  const int n = int(spec.shape[0]), k = int(spec.shape[1]);
  kernels::DequantizeWeight(codes, k, n, k, scales.data(), Values(entry).data(), k, pool);
}

}  // namespace temper::learner
