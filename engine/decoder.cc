#include "engine/decoder.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "configs/error.h"
#include "kernels/sampling.h"

namespace temper::engine {

namespace {

class CpuDecoder : public Decoder {
 public:
  CpuDecoder(std::shared_ptr<const Weights> weights, const EngineOptions& options,
             kernels::ThreadPool& pool)
      : weights_(std::move(weights)), pool_(pool), forward_(*weights_, pool) {
    const int v = weights_->config().vocab_size;
    valid_ = options.valid_ids > 0 ? std::min(options.valid_ids, v) : v;
  }

  std::int64_t CacheBytes(int layers) const override { return forward_.CacheBytes(layers); }
  CacheMemory TakeCache(std::int64_t, std::int64_t) override { return {}; }
  const float* states() const override { return hidden_.data(); }
  Forward* forward() override { return &forward_; }
  void WeightsChanged() override {}

  void Run(const ForwardRows& rows, std::span<const int> heads,
           const Forward::Experts& experts) override {
    const std::size_t h = std::size_t(weights_->config().hidden_size);
    hidden_.resize(std::size_t(rows.m) * h);
    forward_.Hidden(rows, hidden_.data(), experts);
    picked_.resize(heads.size() * h);
    for (std::size_t i = 0; i < heads.size(); ++i) {
      std::copy_n(hidden_.begin() + std::int64_t(heads[i]) * std::int64_t(h), h,
                  picked_.begin() + std::int64_t(i * h));
    }
    logits_.resize(heads.size() * std::size_t(weights_->config().vocab_size));
    if (!heads.empty()) forward_.Logits(picked_.data(), int(heads.size()), logits_.data());
  }

  std::vector<Drawn> Sample(std::span<const Draw> draws) override {
    return SampleFrom(draws, logits_.data());
  }

  std::vector<Drawn> SampleFrom(std::span<const Draw> draws, const float* logits) override {
    const int v = weights_->config().vocab_size;
    std::vector<Drawn> drawn(draws.size());
    constexpr int kPart = 8;
    const int part_size = v > 4096 ? 1 : kPart;
    pool_.Run(int((draws.size() + part_size - 1) / part_size), [&](int part) {
      const std::size_t end = std::min(draws.size(), std::size_t(part + 1) * part_size);
      for (std::size_t i = std::size_t(part) * part_size; i < end; ++i) {
        const Draw& d = draws[i];
        const float* row = logits + std::int64_t(d.row) * v;
        const float u = kernels::SampleUniform(d.seed, d.group, d.sample, d.position);
        drawn[i].token = kernels::SampleToken(row, v, valid_, *d.params, u);
        if (d.kept) kernels::KeptIds(row, v, valid_, *d.params, &drawn[i].kept);
      }
    });
    return drawn;
  }

 private:
  std::shared_ptr<const Weights> weights_;
  kernels::ThreadPool& pool_;
  Forward forward_;
  int valid_;
  std::vector<float> hidden_, picked_, logits_;
};

}  // namespace

DeviceRange ParseDevices(const std::string& devices) {
  if (devices == "cpu") return {-1, 1};
  if (devices == "cuda") return {0, 1};
  const auto number = [](std::string_view text) {
    int value = -1;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && stop == text.data() + text.size();
    return whole && value < 1024 ? value : -1;
  };
  if (devices.rfind("cuda:", 0) == 0) {
    const std::string_view text = std::string_view(devices).substr(5);
    const std::size_t dash = text.find('-');
    const int first = number(text.substr(0, dash));
    const int last = dash == text.npos ? first : number(text.substr(dash + 1));
    if (first >= 0 && last >= first) return {first, last - first + 1};
  }
  throw UserError("device: \"" + devices + "\" must be cpu, cuda:N or cuda:N-M, e.g. cuda:0");
}

int DeviceNumber(const std::string& device) {
  const DeviceRange range = ParseDevices(device);
  if (range.count == 1) return range.first;
  throw UserError(
      "device: \"" + device +
      "\" names several devices where one is taken, e.g. cuda:" + std::to_string(range.first));
}

void CheckDevice(const std::string& device) {
  const DeviceRange range = ParseDevices(device);
  for (int i = 0; range.first >= 0 && i < range.count; ++i) CheckCudaDevice(range.first + i);
}

std::unique_ptr<Decoder> MakeDecoder(std::shared_ptr<const Weights> weights,
                                     const EngineOptions& options, kernels::ThreadPool& pool) {
  const DeviceRange devices = ParseDevices(options.device);
  if (devices.first >= 0) return MakeCudaDecoder(std::move(weights), options, devices);
  if (weights->numerics().tensor) {
    throw UserError(
        "arithmetic: cuda-1 runs on a device alone; choose device cuda:N or arithmetic canon-1");
  }
  return std::make_unique<CpuDecoder>(std::move(weights), options, pool);
}

}  // namespace temper::engine
