#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>

#include "cli/args.h"
#include "cli/child.h"
#include "cli/commands.h"
#include "cli/data_dir.h"
#include "cli/evaluate.h"
#include "cli/tasks.h"
#include "configs/config.h"
#include "configs/error.h"
#include "configs/files.h"
#include "engine/checkpoint.h"
#include "learner/core/progress.h"
#include "reward/function.h"

namespace temper::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string out, task_name = "sums";
  std::int64_t seed = 0;
  std::vector<std::string> sets;
};

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

void Say(const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }

/// runs/quickstart, or the first of runs/quickstart-2, -3, ... that is free; made here, so that two
/// at once never share one.
std::string MakeFolder(const std::string& wish) {
  std::error_code error;
  const std::string base = wish.empty() ? "runs/quickstart" : wish;
  const fs::path parent = fs::absolute(base).parent_path();
  configs::MakeFolders(parent);
  for (int i = 1; i < 100000; ++i) {
    const std::string dir = fs::absolute(i == 1 ? base : base + "-" + std::to_string(i)).string();
    if (fs::create_directory(dir, error)) {
      configs::SyncFolder(parent);
      return dir;
    }
    if (error) throw MachineError(dir + ": " + error.message());
    if (!wish.empty()) throw UserError(dir + ": exists; choose another --out");
  }
  throw UserError(base + ": no free name; give --out");
}

/// What the quickstart decides itself; a run never ignores what it was told.
void CheckSets(const Options& options) {
  const std::pair<const char*, const char*> own[] = {
      {"seed", "--seed"}, {"output_dir", "--out"}, {"model", "none"}, {"data.train", "--task"}};
  for (const std::string& set : options.sets) {
    for (const auto& [key, instead] : own) {
      if (set.rfind(std::string(key) + "=", 0) != 0) continue;
      throw UserError("--set " + set + ": the quickstart chooses " + key + " itself" +
                      (instead == std::string("none") ? "" : std::string("; use ") + instead));
    }
  }
}

/// The template with the folder's paths and the seed, and --set over it.
configs::Config JobConfig(const Options& options, const Task& task, const std::string& dir,
                          const std::string& job, const std::string& model,
                          const std::string& train) {
  std::vector<std::string> sets = {"name=" +
                                   Json(fs::path(dir).filename().string() + "-" + job).dump()};
  sets.insert(sets.end(), options.sets.begin(), options.sets.end());
  const auto set = [&](const std::string& key, const Json& value) {
    sets.push_back(key + "=" + value.dump());
  };
  set("seed", options.seed);
  set("model", model);
  set("output_dir", dir + "/" + job);
  set("data.train", train);
  return configs::ReadConfig(DataFile(task.config), sets,
                             job == "sft" ? configs::Job::kSft : configs::Job::kGrpo);
}

struct Scores {
  double greedy = 0, sampled = 0;
};

class Story {
 public:
  explicit Story(const Options& options)
      : options_(options), task_(FindTask(options.task_name)), dir_(MakeFolder(options.out)) {}

  Json Tell() {
    const auto began = Clock::now();
    files_ = WriteTask(task_, Seed(), {}, MakeSub("data"));
    const std::string model = dir_ + "/model";
    engine::InitModel(DataFile("configs/arch/quickstart.json"),
                      DataFile("configs/tokenizers/bytes"), Seed(), engine::Dtype::kF32, model);
    Say("A fresh model of " + Parameters(model) + " parameters learns " + task_.story +
        ". Run: " + Shown(dir_));
    const Scores init = Evaluate("init", model);
    const double sft_seconds = Train("sft", model, files_.sft);
    const std::string tuned = Checkpoint("sft");
    const Scores sft = Evaluate("sft", tuned);
    const double grpo_seconds = Train("grpo", tuned, files_.grpo);
    const Scores grpo = Evaluate("grpo", Checkpoint("grpo"));
    Conclude(init, sft, grpo, Seconds(began));
    return {{"accuracy_init", init.greedy},
            {"accuracy_sft", sft.greedy},
            {"accuracy_grpo", grpo.greedy},
            {"sampled_init", init.sampled},
            {"sampled_sft", sft.sampled},
            {"sampled_grpo", grpo.sampled},
            {"problems", problems_},
            {"seconds", {{"sft", sft_seconds}, {"grpo", grpo_seconds}, {"eval", eval_seconds_}}},
            {"seed", options_.seed},
            {"task", task_.name},
            {"run", dir_ + "/grpo"}};
  }

 private:
  std::uint64_t Seed() const { return static_cast<std::uint64_t>(options_.seed); }

  std::string MakeSub(const std::string& name) const {
    configs::MakeFolders(dir_ + "/" + name);
    return dir_ + "/" + name;
  }

  /// A path as people type it from here.
  static std::string Shown(const std::string& path) {
    const std::string near = fs::proximate(path).string();
    return near.size() < path.size() ? near : path;
  }

  static std::string Parameters(const std::string& model) {
    std::int64_t count = 0;
    for (const auto& tensor : engine::RequiredTensors(engine::ReadModelConfig(model))) {
      count += tensor.count();
    }
    char text[32];
    std::snprintf(text, sizeof text, "%.2f million", double(count) / 1e6);
    return text;
  }

  std::string Checkpoint(const std::string& job) const {
    return fs::canonical(dir_ + "/" + job + "/checkpoints/latest").string();
  }

  std::string WriteConfig(const std::string& job, const std::string& model,
                          const std::string& train) const {
    const configs::Config config = JobConfig(options_, task_, dir_, job, model, train);
    const std::string path = dir_ + "/" + job + ".json";
    configs::WriteWholeFile(path, configs::ToJson(config).dump(1) + "\n");
    return path;
  }

  double Train(const std::string& job, const std::string& model, const std::string& train) {
    const std::string config = WriteConfig(job, model, train);
    const auto began = Clock::now();
    // Its metric lines stand in the run's metrics.jsonl too; ours is the last line of stdout.
    Child child(job, ThisProgram(), {job, config}, dir_ + "/" + job + ".log", "");
    const int code = child.Wait();
    if (code == 2) throw UserError(job + " did not accept its settings; see above");
    if (code != 0) {
      throw MachineError(job + " ended with exit " + std::to_string(code) + "; see above and " +
                         dir_ + "/" + job + "/logs");
    }
    return Seconds(began);
  }

  Json Measure(const std::string& stage, const std::string& model, double temperature, int n) {
    EvalOptions eval;
    eval.model_dir = model;
    eval.data = files_.heldout;
    eval.reward = reward::ParseRewardArgument(DataFile(task_.reward));
    eval.threshold = task_.threshold;
    eval.show_progress = false;
    eval.sampling.n = n;
    eval.sampling.max_new_tokens = 32;
    eval.sampling.params.temperature = static_cast<float>(temperature);
    eval.sampling.seed = Seed();
    eval.sampling.threads = 0;
    if (n == 1) eval.samples_path = dir_ + "/eval-" + stage + ".jsonl";
    return cli::Evaluate(eval);
  }

  Scores Evaluate(const std::string& stage, const std::string& model) {
    const auto began = Clock::now();
    const Json greedy = Measure(stage, model, 0, 1);
    const Json sampled = Measure(stage, model, 1, 4);
    eval_seconds_ += Seconds(began);
    problems_ = greedy["prompts"].get<std::int64_t>();
    const auto value = [](const Json& x) { return x.is_number() ? x.get<double>() : 0.0; };
    const Scores scores{value(greedy["mean@1"]), value(sampled["mean@4"])};
    char text[160];
    std::snprintf(text, sizeof text, "  %-5s greedy %.3f, sampled %.3f on %lld held-out problems",
                  stage.c_str(), scores.greedy, scores.sampled, static_cast<long long>(problems_));
    Say(text);
    for (const std::string& example : Examples(stage)) Say("        " + example);
    return scores;
  }

  /// The first three answers of an evaluation, with what was asked.
  std::vector<std::string> Examples(const std::string& stage) const {
    std::ifstream rows(files_.heldout), samples(dir_ + "/eval-" + stage + ".jsonl");
    std::vector<std::string> examples;
    std::string row, sample;
    while (examples.size() < 3 && std::getline(rows, row) && std::getline(samples, sample)) {
      const Json asked = configs::ParseJson(row, files_.heldout);
      const Json given = configs::ParseJson(sample, "eval");
      const bool right =
          given["score"].is_number() && given["score"].get<double>() >= task_.threshold;
      examples.push_back(
          asked["prompt"].get<std::string>() + " " +
          configs::Quote(given["text"].get<std::string>()) +
          (right ? "  right" : "  wrong, the answer is " + asked["answer"].get<std::string>()));
    }
    return examples;
  }

  void Conclude(const Scores& init, const Scores& sft, const Scores& grpo, double seconds) const {
    char text[200];
    std::snprintf(
        text, sizeof text,
        "Held-out accuracy: %.3f fresh, %.3f after fine-tuning, %.3f after GRPO; %s in all.",
        init.greedy, sft.greedy, grpo.greedy, learner::Duration(seconds).c_str());
    Say(text);
    const std::string run = Shown(dir_) + "/grpo";
    Say("Look closer:  temper runs show " + run + "\n              temper runs query " + run +
        " \"SELECT step, reward_mean FROM step\"\n              temper generate --model " + run +
        "/checkpoints/latest --prompt \"17+25+8;\"");
  }

  const Options& options_;
  const Task& task_;
  const std::string dir_;
  TaskFiles files_;
  std::int64_t problems_ = 0;
  double eval_seconds_ = 0;
};

}  // namespace

int Quickstart(const Arguments& arguments) {
  Options options;
  Args args(
      "temper quickstart",
      "The whole story on a fresh tiny model: fine-tuning, GRPO, held-out accuracy before and "
      "after.");
  args.Text("--out", "DIR", "the run's folder; by default the next free runs/quickstart[-N]",
            &options.out);
  args.Integer("--seed", "of weights, data and sampling", std::int64_t{0}, INT64_MAX,
               &options.seed);
  args.List("--set", "a.b=VALUE", "a setting of the two runs, such as grpo.max_steps=100",
            &options.sets);
  args.Text("--task", "NAME", "sums or reverse-text", &options.task_name);
  if (!args.Parse(arguments)) return 0;
  // Whatever can be wrong is told before anything is written.
  LearnerProgram();
  CheckSets(options);
  for (const char* job : {"sft", "grpo"}) {
    JobConfig(options, FindTask(options.task_name), "quickstart", job, "model", "rows.jsonl");
  }
  const Json result = Story(options).Tell();
  PrintLine(result.dump());
  return 0;
}

}  // namespace temper::cli
