#include "learner/update.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "configs/error.h"

namespace temper::learner {

namespace {

void BalanceRouters(Parameters& parameters, const ExpertLoads& loads, double speed) {
  const engine::ModelConfig& c = parameters.config();
  if (!c.has_router_bias()) return;
  int layer = -1;
  for (std::size_t i = 0; i < loads.layers().size(); ++i) {
    do ++layer;
    while (!c.IsMoe(layer));
    const std::vector<std::int64_t>& load = loads.layers()[i];
    const std::int64_t total = std::accumulate(load.begin(), load.end(), std::int64_t{0});
    const std::string name =
        "model.layers." + std::to_string(layer) + ".mlp.gate.e_score_correction_bias";
    const std::span<float> bias = parameters.MutableValue(parameters.Find(name));
    for (std::size_t e = 0; e < load.size(); ++e) {
      // Compared in integers: load_e * E against the sum.
      const std::int64_t own = load[e] * std::int64_t(load.size());
      if (own != total) bias[e] += float(own < total ? speed : -speed);
    }
  }
}

double MaxViolation(const std::vector<std::int64_t>& load) {
  const std::int64_t total = std::accumulate(load.begin(), load.end(), std::int64_t{0});
  if (total == 0) return 0;
  return double(*std::max_element(load.begin(), load.end())) * double(load.size()) / double(total) -
         1;
}

/// A sequence that ends: no trunk of branches.
bool IsWhole(const Pack& pack, int s) { return pack.BranchesEnd(s) == s + 1; }

/// The sum over the sequences of each one's violation, its trunk's tokens included.
double SequenceViolations(const Pack& pack, const Routing& routing) {
  const std::size_t k = routing.ids.size() / std::size_t(std::max(1, pack.tokens()));
  const auto count = [&](int s, std::vector<std::int64_t>* load) {
    const auto first = routing.ids.begin() + std::ptrdiff_t(std::size_t(pack.start[s]) * k);
    std::for_each(first, first + std::ptrdiff_t(std::size_t(pack.length(s)) * k),
                  [&](std::int32_t e) { ++(*load)[std::size_t(e)]; });
  };
  double sum = 0;
  std::vector<std::int64_t> trunk;
  int counted = -1;
  for (int s = 0; s < pack.sequences(); ++s) {
    if (!IsWhole(pack, s)) continue;
    if (pack.trunk[s] < 0 || pack.trunk[s] != counted) {
      trunk.assign(routing.loads.size(), 0);
      if (pack.trunk[s] >= 0) count(pack.trunk[s], &trunk);
      counted = pack.trunk[s];
    }
    std::vector<std::int64_t> load = trunk;
    count(s, &load);
    sum += MaxViolation(load);
  }
  return sum;
}

}  // namespace

void ExpertLoads::Add(const Pack& pack, const std::vector<Routing>& main,
                      const std::vector<Routing>& mtp, int repeated) {
  std::size_t layer = 0;
  const std::size_t k =
      main.empty() ? 0 : main[0].ids.size() / std::size_t(std::max(1, pack.tokens()));
  for (const std::vector<Routing>* routings : {&main, &mtp}) {
    for (const Routing& routing : *routings) {
      if (layers_.size() <= layer) layers_.resize(layer + 1);
      if (layers_[layer].empty()) layers_[layer].assign(routing.loads.size(), 0);
      for (std::size_t e = 0; e < routing.loads.size(); ++e) layers_[layer][e] += routing.loads[e];
      // A trunk has a row less in each MTP layer (learner/core/mtp_rows.h).
      const int depth = routings == &main ? 0 : 1 + int(layer - main.size());
      for (std::size_t i = 0; repeated > depth && i < std::size_t(repeated - depth) * k; ++i)
        --layers_[layer][std::size_t(routing.ids[i])];
      ++layer;
    }
  }
  sequence_.resize(main.size());
  for (std::size_t l = 0; l < main.size(); ++l) sequence_[l] += SequenceViolations(pack, main[l]);
  for (int s = 0; s < pack.sequences(); ++s) sequences_ += IsWhole(pack, s);
}

void ExpertLoads::Sum(Communicator& ranks) {
  if (ranks.alone()) return;
  const Json mine = {{"layers", layers_}, {"sequence", sequence_}, {"sequences", sequences_}};
  *this = {};
  for (const std::string& text : ranks.Gather(mine.dump())) {
    const Json one = configs::ParseJson(text, "a rank's loads");
    const auto add = [](auto* to, const auto& from) {  // a rank without work has seen no layer
      to->resize(std::max(to->size(), from.size()));
      for (std::size_t i = 0; i < from.size(); ++i) (*to)[i] += from[i];
    };
    const auto layers = one["layers"].get<std::vector<std::vector<std::int64_t>>>();
    layers_.resize(std::max(layers_.size(), layers.size()));
    for (std::size_t l = 0; l < layers.size(); ++l) add(&layers_[l], layers[l]);
    add(&sequence_, one["sequence"].get<std::vector<double>>());
    sequences_ += one["sequences"].get<std::int64_t>();
  }
}

Json ExpertLoads::Metrics(const engine::ModelConfig& config) const {
  Json metrics = Json::object();
  double batch = 0, sequence = 0;
  int number = -1;
  for (std::size_t l = 0; l < sequence_.size(); ++l) {
    do ++number;
    while (!config.IsMoe(number));
    const double own = MaxViolation(layers_[l]);
    metrics["moe/max_vio_batch/layer_" + std::to_string(number)] = own;
    batch = std::max(batch, own);
    sequence = std::max(sequence, sequence_[l] / double(std::max<std::int64_t>(1, sequences_)));
  }
  if (sequence_.empty()) return metrics;
  metrics["moe/max_vio_batch"] = batch;
  metrics["moe/max_vio_seq"] = sequence;
  return metrics;
}

void SkippedSteps::Note(const UpdateReport& report, std::int64_t step) {
  in_a_row_ = report.applied ? 0 : in_a_row_ + 1;
  if (report.applied) return;
  std::fprintf(stderr, "%s: step %lld skipped: its loss or gradient is not finite\n", job_,
               static_cast<long long>(step));
  if (in_a_row_ < kMost) return;
  throw UserError(std::string(job_) + ": " + std::to_string(kMost) +
                  " steps in a row had a loss or gradient that is not finite; the last checkpoint "
                  "holds good weights: resume from it with a smaller learning_rate");
}

namespace {

/// Segments inside [begin, end), counted from `begin`.
std::vector<AdamwSegment> Within(const std::vector<AdamwSegment>& segments, std::int64_t begin,
                                 std::int64_t end) {
  std::vector<AdamwSegment> within;
  for (AdamwSegment segment : segments) {
    segment.begin = std::max(segment.begin, begin) - begin;
    segment.end = std::min(segment.end, end) - begin;
    if (segment.begin < segment.end) within.push_back(segment);
  }
  return within;
}

}  // namespace

UpdateReport Update(Policy& policy, const configs::Optimizer& config, std::int64_t step,
                    const ExpertLoads& loads, double loss, Communicator* ranks) {
  Parameters& parameters = policy.parameters();
  const TrainedBuffers trained = policy.trained();
  std::vector<AdamwSegment> segments;
  if (Lora* lora = policy.lora()) {
    lora->TakeGradients(parameters, policy.pool());
    segments = lora->Segments();
  } else {
    segments = parameters.Segments(config.mtp_loss_scale > 0);
  }
  const std::int64_t begin = trained.shard.begin(trained.size);
  segments = Within(segments, begin, trained.shard.end(trained.size));
  const bool together = ranks && !ranks->alone();
  if (together) ranks->ReduceScatter(trained.gradients, trained.size);
  const float* gradients = trained.gradients + begin;
  UpdateReport report;
  report.learning_rate = LearningRate(config, step);
  report.gradient_norm = GradientNorm(segments, gradients);
  if (together) {
    std::vector<double> square = {report.gradient_norm * report.gradient_norm};
    ranks->Sum(&square);
    report.gradient_norm = std::sqrt(square[0]);
  }
  report.applied = std::isfinite(loss) && std::isfinite(report.gradient_norm);
  if (report.applied) {
    AdamwStep adamw;
    adamw.number = step;
    adamw.learning_rate = report.learning_rate;
    adamw.gradient_scale = ClipScale(report.gradient_norm, config.max_grad_norm);
    adamw.beta1 = config.adam_beta1;
    adamw.beta2 = config.adam_beta2;
    adamw.epsilon = config.adam_epsilon;
    adamw.weight_decay = config.weight_decay;
    Adamw(segments, adamw, gradients, trained.values + begin, trained.moment1, trained.moment2);
    if (together) ranks->AllGather(trained.values, trained.size);
    if (config.router_bias_update_speed > 0)
      BalanceRouters(parameters, loads, config.router_bias_update_speed);
  }
  parameters.ZeroGradients();
  if (report.applied) policy.Refresh();
  return report;
}

}  // namespace temper::learner
