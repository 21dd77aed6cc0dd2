#include "sft/teacher.h"

#include <algorithm>
#include <cmath>

#include "configs/error.h"

namespace temper::sft {

namespace {

const Json& Lists(const Json& row, const char* column, const std::string& where,
                  std::size_t count) {
  const Json& lists = row.at(column);
  if (!lists.is_array() || lists.size() != count) {
    throw UserError(where + ": " + column + " must be " + std::to_string(count) +
                    " lists, one for each id of the completion");
  }
  return lists;
}

}  // namespace

std::vector<learner::WeightedIds> TeacherTargets(const Json& row, const std::string& where,
                                                 const std::vector<std::int32_t>& completion,
                                                 int vocab, double alpha) {
  if (!row.contains("teacher_ids") && !row.contains("teacher_logprobs")) return {};
  if (!row.contains("teacher_ids") || !row.contains("teacher_logprobs") || completion.empty()) {
    throw UserError(where +
                    ": a teacher's row has prompt_ids, completion_ids, teacher_ids and "
                    "teacher_logprobs");
  }
  const Json& ids = Lists(row, "teacher_ids", where, completion.size());
  const Json& logps = Lists(row, "teacher_logprobs", where, completion.size());
  std::vector<learner::WeightedIds> targets(completion.size());
  for (std::size_t t = 0; t < completion.size(); ++t) {
    const std::string at = where + ": teacher_ids[" + std::to_string(t) + "]";
    if (!ids[t].is_array() || !logps[t].is_array() || ids[t].size() != logps[t].size())
      throw UserError(at + " and teacher_logprobs there must be lists of one length");
    learner::WeightedIds& target = targets[t];
    double sum = 0;
    for (std::size_t j = 0; j < ids[t].size(); ++j) {
      const auto id = std::int32_t(configs::GetInt(ids[t][j], at, 0, vocab - 1));
      if (!logps[t][j].is_number() || !(logps[t][j] <= 0.001))
        throw UserError(at + ": " + configs::Brief(logps[t][j]) + " is no log-probability");
      if (std::find(target.ids.begin(), target.ids.end(), id) != target.ids.end())
        throw UserError(at + ": " + std::to_string(id) + " stands there twice");
      target.ids.push_back(id);
      target.weights.push_back(float(std::exp(logps[t][j].get<double>())));
      sum += target.weights.back();
    }
    if (target.ids.empty()) continue;
    if (sum == 0) throw UserError(at + ": all probabilities are 0");
    for (float& w : target.weights) w = float(alpha * w / sum);
    if (alpha == 1) continue;
    const auto own = std::find(target.ids.begin(), target.ids.end(), completion[t]);
    if (own == target.ids.end()) {
      target.ids.push_back(completion[t]);
      target.weights.push_back(float(1 - alpha));
    } else {
      target.weights[std::size_t(own - target.ids.begin())] += float(1 - alpha);
    }
  }
  return targets;
}

double NegatedEntropy(const learner::WeightedIds& target) {
  double sum = 0;
  for (float w : target.weights) {
    if (w > 0) sum += double(w) * std::log(double(w));
  }
  return sum;
}

}  // namespace temper::sft
