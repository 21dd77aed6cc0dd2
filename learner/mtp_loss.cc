#include "learner/mtp_loss.h"

namespace temper::learner {

MtpLoss::MtpLoss(const engine::ModelConfig& config, double scale)
    : scale_(scale),
      tokens_(std::size_t(config.mtp_layers), 0),
      correct_(std::size_t(config.mtp_layers), 0) {}

void MtpLoss::Count(const Pack& pack, const Targets& targets) {
  for (const std::int32_t row : targets.row) {
    for (std::size_t d = 0; d < tokens_.size(); ++d)
      tokens_[d] += pack.position[row] >= 1 + std::int32_t(d);
  }
}

void MtpLoss::Add(const Policy::Result& result, Tensors* from, Tensors* gradient) {
  for (std::size_t d = 0; d < result.mtp_logp.size(); ++d) {
    const torch::Tensor& logp = result.mtp_logp[d];
    correct_[d] += result.mtp_correct[d];
    const double weight = 1.0 / (double(tokens_.size()) * double(tokens_[d]));
    from->push_back(logp);
    gradient->push_back(torch::full_like(logp, -scale_ * weight));
    for (std::int64_t i = 0; i < logp.numel(); ++i)
      mean_ -= double(logp.data_ptr<float>()[i]) * weight;
  }
}

void MtpLoss::Sum(Communicator& ranks) {
  std::vector<double> sums(correct_.begin(), correct_.end());
  sums.push_back(mean_);
  ranks.Sum(&sums);
  mean_ = sums.back();
  for (std::size_t d = 0; d < correct_.size(); ++d) correct_[d] = std::int64_t(sums[d]);
}

std::vector<double> MtpLoss::acceptance() const {
  std::vector<double> shares;
  for (std::size_t d = 0; d < tokens_.size() && wanted(); ++d) {
    if (tokens_[d] > 0) shares.push_back(double(correct_[d]) / double(tokens_[d]));
  }
  return shares;
}

void AddAcceptance(const std::vector<double>& acceptance, Json* metrics) {
  for (std::size_t d = 0; d < acceptance.size(); ++d) {
    const std::string depth = d == 0 ? "" : "/depth_" + std::to_string(d + 1);
    (*metrics)["mtp/acceptance" + depth] = acceptance[d];
  }
}

}  // namespace temper::learner
