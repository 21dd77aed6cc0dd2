// Stored rollouts generated again, from the weights that the run kept.
#include <algorithm>
#include <charconv>
#include <climits>
#include <cstring>
#include <filesystem>
#include <map>
#include <numeric>

#include "cli/args.h"
#include "cli/model.h"
#include "cli/reward_commands.h"
#include "cli/runs_commands.h"
#include "configs/config.h"
#include "configs/error.h"
#include "engine/checkpoint.h"
#include "engine/data/rows.h"
#include "engine/safetensors.h"
#include "engine/stop_ids.h"
#include "store/trajectories.h"

namespace temper::cli {
namespace {

namespace fs = std::filesystem;

struct Rollout {
  std::string name;
  std::uint64_t grp = 0, seed = 0;
  std::uint32_t sample = 0;
  std::vector<std::int32_t> prompt, ids;
  std::vector<float> logp;
  std::vector<std::uint32_t> versions;  // one an id
  std::string finish;
  bool same = true;
};

/// Tokens [begin, end) of a rollout, all of one version.
struct Stretch {
  Rollout* rollout;
  std::size_t begin, end;
};

std::vector<Rollout> ReadRollouts(const std::string& run, const std::string& where) {
  std::vector<Rollout> rollouts;
  store::Reader reader((fs::path(run) / "trajectories.db").string());
  reader.Query(
      "SELECT r.grp, sample, r.attempt, version, seed, ids, logp, versions, finish_reason, "
      "prompt_ids "
      "FROM rollout r JOIN prompt_group g ON g.grp = r.grp WHERE finish_reason IN ('stop', "
      "'length') " +
          where + " ORDER BY r.grp, sample, r.attempt",
      [&](const Json& row) {
        Rollout r;
        r.grp = row["grp"], r.sample = row["sample"], r.seed = row["seed"];
        const int attempt = row["attempt"];
        r.name = "g" + std::to_string(r.grp) + ".s" + std::to_string(r.sample) +
                 (attempt > 0 ? ".a" + std::to_string(attempt) : "") + "@v" + row["version"].dump();
        r.prompt = row["prompt_ids"].get<std::vector<std::int32_t>>();
        r.ids = row["ids"].get<std::vector<std::int32_t>>();
        r.logp = row["logp"].get<std::vector<float>>();
        r.finish = row["finish_reason"];
        if (row["versions"].is_array()) {
          r.versions = row["versions"].get<std::vector<std::uint32_t>>();
        }
        if (r.versions.empty())
          r.versions.assign(r.ids.size(), row["version"].get<std::uint32_t>());
        rollouts.push_back(std::move(r));
      });
  return rollouts;
}

/// The number in names such as v000017.safetensors.
std::optional<std::uint32_t> VersionOf(const fs::path& path) {
  const std::string name = path.filename().string();
  std::uint32_t version = 0;
  const char* const end = name.data() + name.size();
  if (name.empty() || name[0] != 'v' || path.extension() != ".safetensors") return std::nullopt;
  const auto [stop, bad] = std::from_chars(name.data() + 1, end, version);
  if (bad != std::errc() || std::string_view(stop, end) != ".safetensors") return std::nullopt;
  return version;
}

/// Version -> its file under versions/, or the checkpoint whose weights it is.
std::map<std::uint32_t, fs::path> KeptVersions(const std::string& run) {
  std::map<std::uint32_t, fs::path> kept;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(fs::path(run) / "checkpoints", error)) {
    const fs::path state = entry.path() / "state.json";
    if (entry.is_symlink() || !fs::exists(state)) continue;
    const Json json = configs::ReadJsonFile(state.string());
    const auto version = json.find("version");
    if (version != json.end() && version->is_number_unsigned()) kept[*version] = entry.path();
  }
  for (const auto& entry : fs::directory_iterator(fs::path(run) / "versions", error)) {
    if (const auto version = VersionOf(entry.path())) kept[*version] = entry.path();
  }
  return kept;
}

/// "3, 7, 10 to 20"
std::string Listed(const std::map<std::uint32_t, fs::path>& kept) {
  std::string text;
  for (auto it = kept.begin(); it != kept.end();) {
    const std::uint32_t first = it->first;
    std::uint32_t last = first;
    while (++it != kept.end() && it->first == last + 1) ++last;
    text += (text.empty() ? "" : ", ") + std::to_string(first) +
            (last > first ? " to " + std::to_string(last) : "");
  }
  return text.empty() ? "none" : text;
}

void LoadVersion(const fs::path& path, engine::Weights& weights) {
  if (fs::is_directory(path)) {
    engine::ReadCheckpoint(path.string(), weights.config(),
                           [&](const engine::TensorSpec& spec, const engine::TensorData& data) {
                             weights.Set(spec.name, data);
                           });
    return;
  }
  const engine::SafetensorsFile file(path.string());
  for (const engine::TensorSpec& spec : engine::RequiredTensors(weights.config())) {
    const auto info = file.tensors().find(spec.name);
    if (info == file.tensors().end())
      throw UserError(path.string() + ": " + spec.name + " is missing");
    if (info->second.dtype != engine::Dtype::kF8E4m3) {
      weights.Set(spec.name, file.ReadFloats(spec.name));
      continue;
    }
    std::vector<std::uint8_t> codes(std::size_t(info->second.count()));
    file.Read(spec.name, std::as_writable_bytes(std::span(codes)));
    weights.Set(spec.name, {{}, codes, file.ReadFloats(spec.name + "_scale_inv")});
  }
}

/// Generates the stretches again on the loaded weights and compares them bit by bit.
void Replay(std::shared_ptr<engine::Weights> weights, const configs::Config& config,
            const engine::EngineOptions& options, const std::vector<std::int32_t>& stop_ids,
            const std::vector<Stretch>& stretches) {
  engine::Engine engine(std::move(weights), options);
  const configs::Grpo& grpo = config.grpo;
  std::map<std::pair<std::uint64_t, std::uint32_t>, const Stretch*> waiting;
  const auto compare = [&](const engine::FinishedSample& sample) {
    const Stretch& stretch = *waiting.at({sample.group, sample.sample});
    Rollout& r = *stretch.rollout;
    const std::size_t n = stretch.end - stretch.begin;
    const bool last = stretch.end == r.ids.size();
    r.same =
        r.same && sample.ids.size() == n &&
        std::equal(sample.ids.begin(), sample.ids.end(),
                   r.ids.begin() + std::ptrdiff_t(stretch.begin)) &&
        std::memcmp(sample.logp.data(), r.logp.data() + stretch.begin, n * sizeof(float)) == 0 &&
        (!last || engine::FinishReasonName(sample.finish) == r.finish);
  };
  // A rollout that was handed out twice has the same group and sample: one at a time.
  std::vector<const Stretch*> left;
  for (const Stretch& s : stretches) left.push_back(&s);
  while (!left.empty()) {
    waiting.clear();
    std::vector<const Stretch*> later;
    for (const Stretch* s : left) {
      const Rollout& r = *s->rollout;
      if (!waiting.emplace(std::pair(r.grp, r.sample), s).second) {
        later.push_back(s);
        continue;
      }
      engine::GroupRequest request;
      request.group = r.grp;
      request.prompt = r.prompt;
      request.prompt.insert(request.prompt.end(), r.ids.begin(),
                            r.ids.begin() + std::ptrdiff_t(s->begin));
      request.begun = std::uint32_t(s->begin);
      request.samples = {r.sample};
      request.seed = r.seed;
      const bool last = s->end == r.ids.size();
      request.max_new_tokens =
          int((last ? std::size_t(grpo.max_completion_length) : s->end) - s->begin);
      request.params = {float(grpo.temperature), grpo.top_k, float(grpo.top_p), float(grpo.min_p)};
      request.stop_ids = stop_ids;
      engine.Add(std::move(request));
    }
    std::vector<engine::FinishedSample> finished;
    while (engine.Step(&finished)) {
    }
    for (const engine::FinishedSample& sample : finished) compare(sample);
    left = std::move(later);
  }
}

/// So many of them, drawn by the seed; in their order.
std::vector<Rollout> Draw(std::vector<Rollout> rollouts, std::int64_t count, std::uint64_t seed) {
  if (count == 0 || count >= std::int64_t(rollouts.size())) return rollouts;
  std::vector<std::int64_t> order = engine::Shuffled(std::int64_t(rollouts.size()), seed, 0);
  order.resize(std::size_t(count));
  std::sort(order.begin(), order.end());
  std::vector<Rollout> drawn;
  for (std::int64_t i : order) drawn.push_back(std::move(rollouts[std::size_t(i)]));
  return drawn;
}

/// " AND r.grp = 41 AND sample = 3" of "g41.s3@v17"; every attempt unless one is named.
std::string WhereOf(const Args& args, const std::string& name) {
  if (name.empty()) return "";
  unsigned long long grp = 0;
  unsigned sample = 0, attempt = 0;
  int end = 0;
  if (std::sscanf(name.c_str(), "g%llu.s%u%n", &grp, &sample, &end) != 2)
    args.Fail("ROLLOUT: \"" + name + "\" must be a name such as g41.s3@v17 or g41.s3.a1");
  std::string where =
      " AND r.grp = " + std::to_string(grp) + " AND sample = " + std::to_string(sample);
  if (std::sscanf(name.c_str() + end, ".a%u", &attempt) == 1)
    where += " AND r.attempt = " + std::to_string(attempt);
  return where;
}

}  // namespace

int RunsReplay(const Arguments& arguments) {
  std::string run, name, model_dir;
  std::int64_t count = 0, seed = 0;
  int threads = 0;
  std::string device = "cpu";
  bool json = false;
  Args args("temper runs replay",
            "Generates stored rollouts again and compares ids and log-probs bit by bit; exit 1 if "
            "one differs.");
  args.Positional("RUN", "the run's folder", &run);
  args.Positional("ROLLOUT", "such as g41.s3@v17; by default all", &name).Optional();
  args.Integer("--count", "so many, drawn at random; 0 = all", std::int64_t{0}, INT64_MAX, &count);
  args.Integer("--seed", "of the draw", std::int64_t{0}, INT64_MAX, &seed);
  args.Integer("--threads", "0 = all cores", 0, 4096, &threads);
  args.Text("--device", "D",
            "cpu, or in a build with CUDA cuda:N, or cuda:N-M: experts over all of these", &device);
  args.Text("--model", "DIR", "config and tokenizer; by default the run's model", &model_dir);
  args.Flag("--json", "one object", &json);
  if (!args.Parse(arguments)) return 0;
  run = RunFolder(run);
  const configs::Config config =
      configs::ReadConfig((fs::path(run) / "config.json").string(), {}, configs::Job::kGrpo);
  if (model_dir.empty()) model_dir = config.model;
  const engine::ModelConfig model = engine::ReadModelConfig(model_dir);
  const engine::Tokenizer tokenizer(model_dir);
  std::vector<std::int32_t> stop_ids = engine::StopIds(model, tokenizer);
  if (config.grpo.ignore_eos) stop_ids.clear();

  std::vector<Rollout> rollouts =
      Draw(ReadRollouts(run, WhereOf(args, name)), count, std::uint64_t(seed));
  if (rollouts.empty())
    throw UserError(
        run + ": " +
        (name.empty() ? "no finished rollout is stored" : "no finished rollout " + name));
  const std::map<std::uint32_t, fs::path> kept = KeptVersions(run);
  std::map<std::uint32_t, std::vector<Stretch>> by_version;
  std::int64_t skipped = 0;
  std::uint32_t gone = 0;
  for (Rollout& r : rollouts) {
    const auto missing = std::find_if(r.versions.begin(), r.versions.end(),
                                      [&](std::uint32_t v) { return kept.count(v) == 0; });
    if (missing != r.versions.end()) {
      ++skipped, gone = *missing;
      r.ids.clear();  // nothing to replay
      continue;
    }
    for (std::size_t begin = 0, end = 0; begin < r.ids.size(); begin = end) {
      while (end < r.ids.size() && r.versions[end] == r.versions[begin]) ++end;
      by_version[r.versions[begin]].push_back({&r, begin, end});
    }
  }
  if (by_version.empty()) {
    throw UserError(run + ": the weights of version " + std::to_string(gone) +
                    " are not kept; kept: " + Listed(kept) +
                    " (keep_versions: \"all\" keeps every one)");
  }
  const auto weights = std::make_shared<engine::Weights>(
      model, engine::WithArithmetic(
                 engine::ParseNumerics(config.dtype, config.cache_dtype, config.fp8_scale),
                 config.arithmetic));
  engine::EngineOptions options;
  options.threads = Threads(threads);
  options.device = device;
  options.valid_ids = std::min(tokenizer.size(), model.vocab_size);
  for (const auto& [version, stretches] : by_version) {
    LoadVersion(kept.at(version), *weights);
    weights->CheckComplete();
    Replay(weights, config, options, stop_ids, stretches);
  }
  Json report = {{"replayed", std::int64_t(rollouts.size()) - skipped},
                 {"identical", 0},
                 {"versions", by_version.size()},
                 {"not_kept", skipped},
                 {"different", Json::array()}};
  std::int64_t identical = -skipped;
  for (const Rollout& r : rollouts) {
    identical += r.same;
    if (!r.same) report["different"].push_back(r.name);
  }
  report["identical"] = identical;
  if (json) {
    PrintLine(report.dump());
  } else {
    for (const Json& other : report["different"]) PrintLine("differs: " + other.get<std::string>());
    PrintLine("replayed " + report["replayed"].dump() + ", identical " + std::to_string(identical) +
              ", versions " + report["versions"].dump() +
              (skipped > 0 ? ", not kept " + std::to_string(skipped) : ""));
  }
  return report["different"].empty() ? 0 : 1;
}

}  // namespace temper::cli
