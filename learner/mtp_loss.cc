#include "learner/mtp_loss.h"

namespace temper::learner {

MtpLoss::MtpLoss(const engine::ModelConfig& config, double scale)
    : scale_(scale), tokens_(std::size_t(config.mtp_layers), 0) {}

void MtpLoss::Count(const Pack& pack, const Targets& targets) {
  for (const std::int32_t row : targets.row) {
    for (std::size_t d = 0; d < tokens_.size(); ++d)
      tokens_[d] += pack.position[row] >= 1 + std::int32_t(d);
  }
}

void MtpLoss::Add(const Policy::Result& result, Tensors* from, Tensors* gradient) {
  for (std::size_t d = 0; d < result.mtp_logp.size(); ++d) {
    const torch::Tensor& logp = result.mtp_logp[d];
    const double weight = 1.0 / (double(tokens_.size()) * double(tokens_[d]));
    from->push_back(logp);
    gradient->push_back(torch::full_like(logp, -scale_ * weight));
    for (std::int64_t i = 0; i < logp.numel(); ++i)
      mean_ -= double(logp.data_ptr<float>()[i]) * weight;
  }
}

}  // namespace temper::learner
