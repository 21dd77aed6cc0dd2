#include "cli/backtest.h"

#include <chrono>
#include <cmath>

#include "configs/json.h"
#include "reward/cases.h"
#include "store/trajectories.h"

namespace temper::cli {
namespace {

constexpr char kRows[] =
    "SELECT r.grp AS grp, r.sample AS sample, r.attempt AS attempt, r.version AS version, r.text "
    "AS text, "
    "r.ids AS ids, r.finish_reason AS finish_reason, r.score AS score, r.status AS status, "
    "g.prompt_json AS prompt_json, g.row_json AS row_json, g.granted_step AS granted_step "
    "FROM rollout r JOIN prompt_group g ON g.grp = r.grp "
    "WHERE r.state <> 'received' AND r.reason <> 'duplicate' ";

struct Row {
  Tested tested;
  reward::SampleInput input;
};

/// The mean and the standard deviation with n - 1 of those that are there.
void FillAdvantages(std::vector<Row>* group, std::optional<double> Tested::*score,
                    double Tested::*advantage) {
  double sum = 0, squares = 0, count = 0;
  for (const Row& row : *group) {
    if (const auto& value = row.tested.*score) sum += *value, ++count;
  }
  if (count < 2) return;
  for (const Row& row : *group) {
    if (const auto& value = row.tested.*score) {
      squares += (*value - sum / count) * (*value - sum / count);
    }
  }
  const double deviation = std::sqrt(squares / (count - 1)) + 1e-4;
  for (Row& row : *group) {
    if (const auto& value = row.tested.*score) {
      row.tested.*advantage = (*value - sum / count) / deviation;
    }
  }
}

class Runner {
 public:
  explicit Runner(const BacktestOptions& options) : options_(options), host_(options.host) {
    if (options.against) against_.emplace(*options.against);
    host_.Check();
    if (against_) against_->Check();
    answer_column_ = AnswerColumnOf(options.run_dir);
  }

  Backtest Run() {
    const auto begin = std::chrono::steady_clock::now();
    std::string sql = kRows;
    if (options_.limit > 0) {
      sql += "AND r.grp IN (SELECT grp FROM prompt_group ORDER BY grp LIMIT " +
             std::to_string(options_.limit) + ") ";
    }
    sql += "ORDER BY r.grp, r.sample, r.attempt";
    store::Reader(options_.run_dir + "/trajectories.db").Query(sql, [&](const Json& row) {
      Take(row);
    });
    Finish();
    test_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return std::move(test_);
  }

 private:
  void Take(const Json& json) {
    const auto grp = json.at("grp").get<std::uint64_t>();
    if (grp != grp_) Finish();
    grp_ = grp;
    Row& row = group_.emplace_back();
    reward::SampleInput& input = row.input;
    input.prompt_json = json.at("prompt_json").get<std::string>();
    input.row_json = json.at("row_json").get<std::string>();
    input.completion = json.at("text").get<std::string>();
    for (const Json& id : json.at("ids")) input.completion_ids.push_back(id.get<std::int32_t>());
    input.finish_reason = json.at("finish_reason").get<std::string>();
    input.version = json.at("version").get<std::uint32_t>();
    input.step = json.at("granted_step").get<std::int64_t>();
    if (group_.size() == 1) {
      answer_ = reward::AnswerOfRow(Json::parse(input.row_json, nullptr, false), answer_column_);
    }
    input.answer = answer_;
    Tested& tested = row.tested;
    const auto attempt = json.at("attempt").get<std::int64_t>();
    tested.name = "g" + std::to_string(grp) + ".s" + json.at("sample").dump() +
                  (attempt > 0 ? ".a" + std::to_string(attempt) : "") + "@v" +
                  std::to_string(input.version);
    tested.text = input.completion;
    tested.prompt = input.prompt_json;
    tested.answer = answer_.value_or("");
    if (json.at("score").is_number()) tested.before = json.at("score").get<double>();
    if (json.at("status").is_string()) tested.status_before = json.at("status").get<std::string>();
  }

  void Finish() {
    if (group_.empty()) return;
    std::vector<reward::SampleInput> inputs;
    for (const Row& row : group_) inputs.push_back(row.input);
    const auto after = host_.ScoreGroup(inputs);
    std::vector<reward::ScoreResult> before;
    if (against_) before = against_->ScoreGroup(inputs);
    for (std::size_t i = 0; i < group_.size(); ++i) {
      Tested& tested = group_[i].tested;
      tested.after = after[i].score;
      tested.status_after = after[i].status;
      if (const auto* part = reward::FailedPart(after[i])) tested.message = part->message;
      if (against_) {
        tested.before = before[i].score;
        tested.status_before = before[i].status;
      }
      ++test_.statuses_before[tested.status_before.empty() ? "none" : tested.status_before];
      ++test_.statuses_after[tested.status_after];
    }
    FillAdvantages(&group_, &Tested::before, &Tested::advantage_before);
    FillAdvantages(&group_, &Tested::after, &Tested::advantage_after);
    CountPairs();
    for (Row& row : group_) test_.rollouts.push_back(std::move(row.tested));
    group_.clear();
  }

  void CountPairs() {
    BacktestGroup counts;
    counts.grp = grp_;
    for (std::size_t i = 0; i < group_.size(); ++i) {
      for (std::size_t j = i + 1; j < group_.size(); ++j) {
        const Tested &a = group_[i].tested, &b = group_[j].tested;
        if (!a.before || !b.before || !a.after || !b.after) continue;
        ++counts.pairs;
        const double was = *a.before - *b.before, is = *a.after - *b.after;
        counts.flipped += was * is < 0;
        counts.tied += (was == 0) != (is == 0);
      }
    }
    test_.groups.push_back(counts);
  }

  const BacktestOptions& options_;
  reward::RewardHost host_;
  std::optional<reward::RewardHost> against_;
  std::string answer_column_;
  std::optional<std::string> answer_;
  std::uint64_t grp_ = 0;
  std::vector<Row> group_;
  Backtest test_;
};

Json Or(double value, bool there) { return there ? Json(value) : Json(nullptr); }

}  // namespace

std::string AnswerColumnOf(const std::string& run_dir) {
  std::string name;
  store::Reader(run_dir + "/trajectories.db")
      .Query("SELECT config_json FROM run", [&](const Json& run) {
        const Json config = Json::parse(run.at("config_json").get<std::string>(), nullptr, false);
        if (!config.is_object() || !config.contains("data")) return;
        const Json column = config["data"].value("answer_column", Json());
        if (column.is_string()) name = column.get<std::string>();
      });
  return name;
}

Backtest RunBacktest(const BacktestOptions& options) { return Runner(options).Run(); }

Json BacktestSummary(const Backtest& test) {
  double before = 0, after = 0, n_before = 0, n_after = 0;
  double n = 0, sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
  std::int64_t changed = 0, sign = 0, pairs = 0, flipped = 0, groups_flipped = 0;
  for (const Tested& t : test.rollouts) {
    if (t.before) before += *t.before, ++n_before;
    if (t.after) after += *t.after, ++n_after;
    changed += t.before != t.after;
    sign += t.advantage_before * t.advantage_after < 0;
    if (!t.before || !t.after) continue;
    const double x = *t.before, y = *t.after;
    ++n, sx += x, sy += y, sxx += x * x, syy += y * y, sxy += x * y;
  }
  for (const BacktestGroup& group : test.groups) {
    pairs += group.pairs;
    flipped += group.flipped;
    groups_flipped += group.flipped > 0;
  }
  const double varied = (n * sxx - sx * sx) * (n * syy - sy * sy);
  Json summary = {{"rollouts", test.rollouts.size()}, {"groups", test.groups.size()}};
  summary["mean_before"] = Or(before / std::max(n_before, 1.0), n_before > 0);
  summary["mean_after"] = Or(after / std::max(n_after, 1.0), n_after > 0);
  summary["statuses_before"] = Json::object();
  for (const auto& [status, count] : test.statuses_before)
    summary["statuses_before"][status] = count;
  summary["statuses_after"] = Json::object();
  for (const auto& [status, count] : test.statuses_after) summary["statuses_after"][status] = count;
  summary["changed"] = changed;
  summary["pairs"] = pairs;
  summary["pairs_flipped"] = flipped;
  summary["groups_flipped"] = groups_flipped;
  summary["advantage_sign_changed"] = sign;
  summary["correlation"] =
      Or((n * sxy - sx * sy) / std::sqrt(std::max(varied, 1e-300)), varied > 0);
  summary["seconds"] = std::round(test.seconds * 1000) / 1000;
  return summary;
}

}  // namespace temper::cli
