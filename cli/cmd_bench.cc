// Prefill and decode rates of the engine, against the memory rate of the same run.
#include <algorithm>
#include <chrono>
#include <climits>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "bench/rates.h"
#include "cli/args.h"
#include "cli/cache_report.h"
#include "cli/commands.h"
#include "cli/model.h"
#include "configs/error.h"
#include "engine/decoder.h"
#include "engine/probe.h"
#include "engine/speculation.h"
#include "kernels/cpu.h"

namespace temper::cli {
namespace {

struct Options {
  std::string model, dtype = "fp32", cache_dtype, batches = "1,8,32", drafts = "auto", ids;
  std::string device = "cpu", arithmetic = "canon-1";
  int prompt = 256, new_tokens = 128, runs = 5, threads = 0;
  double temperature = 1;
  std::int64_t seed = 0;
};

struct Run {
  double prefill_s = 0, decode_s = 0;
  engine::EngineStats stats;
};

double Since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<int> Batches(const Args& args, const std::string& text) {
  std::vector<int> out;
  std::size_t at = 0;
  while (at <= text.size()) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const std::string item = text.substr(at, comma - at);
    const bool digits = !item.empty() && item.size() < 6 &&
                        item.find_first_not_of("0123456789") == std::string::npos;
    const int value = digits ? std::stoi(item) : 0;
    if (value < 1) args.Fail("--batch: \"" + item + "\" must be a number of samples, 1 or more");
    out.push_back(value);
    at = comma + 1;
  }
  return out;
}

int Valid(const Model& model) { return std::min(model.tokenizer.size(), model.config.vocab_size); }

/// The first sequence of --ids, or random ones of the tokenizer's range: text would change nothing
/// but the experts.
std::vector<std::int32_t> Prompt(const Options& options, int valid) {
  std::vector<std::int32_t> ids;
  if (!options.ids.empty()) {
    const engine::Sequences sequences = engine::ReadSequences(options.ids, valid);
    if (sequences.empty())
      throw UserError(options.ids + ": no sequence; the first one is the prompt");
    return sequences.front();
  }
  std::uint64_t state = static_cast<std::uint64_t>(options.seed) * 2 + 1;
  for (int i = 0; i < options.prompt; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    ids.push_back(static_cast<std::int32_t>((state >> 33) % static_cast<std::uint64_t>(valid)));
  }
  return ids;
}

Run Once(const Model& model, const Options& options, int batch, int run) {
  engine::EngineOptions engine_options;
  engine_options.threads = options.threads;
  engine_options.max_rows = batch;
  engine_options.valid_ids = model.tokenizer.size();
  engine_options.prefix_tokens = 0;
  engine_options.device = options.device;
  engine_options.speculation = options.drafts == "on"    ? engine::Speculation::kAlways
                               : options.drafts == "off" ? engine::Speculation::kOff
                                                         : engine::Speculation::kAuto;
  engine::Engine engine(model.weights, engine_options);
  engine::GroupRequest request;
  request.prompt = Prompt(options, Valid(model));
  for (int i = 0; i < batch; ++i) request.samples.push_back(static_cast<std::uint32_t>(i));
  request.seed = static_cast<std::uint64_t>(options.seed + run);
  request.max_new_tokens = options.new_tokens;
  request.params.temperature = static_cast<float>(options.temperature);
  engine.Add(std::move(request));
  std::vector<engine::FinishedSample> finished;
  Run out;
  const auto start = std::chrono::steady_clock::now();
  while (engine.stats().generated == 0) engine.Step(&finished);
  out.prefill_s = Since(start);
  const auto decode = std::chrono::steady_clock::now();
  while (engine.Step(&finished)) {
  }
  out.decode_s = Since(decode);
  out.stats = engine.stats();
  return out;
}

Json Spread(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  const auto round = [](double v) { return std::round(v * 100) / 100; };
  return {{"min", round(x.front())}, {"median", round(x[x.size() / 2])}, {"max", round(x.back())}};
}

double Share(double x) { return std::round(x * 1000) / 1000; }

std::int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  std::int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * 4096;
}

void Report(const Model& model, const Options& options, int batch) {
  kernels::ThreadPool pool(options.threads);
  std::vector<double> prefill, decode, ttft, read, fma;
  engine::EngineStats stats;
  std::uint64_t drafted = 0, accepted = 0;
  for (int run = 0; run < options.runs; ++run) {
    read.push_back(bench::ReadRate(pool));
    fma.push_back(bench::FmaRate(pool));
    const Run r = Once(model, options, batch, run);
    prefill.push_back(options.prompt / r.prefill_s);
    ttft.push_back(1e3 * r.prefill_s);
    if (options.new_tokens > 1)
      decode.push_back(double(batch) * (options.new_tokens - 1) / r.decode_s);
    stats = r.stats;
    drafted += stats.drafted, accepted += stats.accepted;
  }
  // A group's prompt is read once a step, each tail by its sample; the mean tail is half of new.
  engine::Engine shape(model.weights, {});
  const double row = double(shape.cache_row_bytes());
  const double cache = row * (options.prompt + batch * options.new_tokens / 2.0);
  const double bytes = (model.weights->StepBytes(batch) + cache) / batch;
  // The head is computed for a prompt's last token only.
  const double weights = engine::WeightsPerToken(model.config);
  const double head = double(model.config.hidden_size) * model.config.vocab_size;
  const double prompt_flop =
      2 * (weights - head + engine::AttentionPerToken(model.config, options.prompt / 2.0));
  const double flop_rate = bench::Median(fma) * 1e9;
  Json line = {{"batch", batch},
               {"prompt", options.prompt},
               {"new", options.new_tokens},
               {"dtype", options.dtype},
               {"cache_dtype", options.cache_dtype},
               {"numerics", model.weights->numerics().id()},
               {"isa", kernels::IsaName(kernels::ActiveIsa())},
               {"threads", options.threads},
               {"device", options.device},
               {"prefill_tok_s", Spread(prefill)},
               {"ttft_ms", Spread(ttft)},
               {"bytes_per_token", std::llround(bytes)},
               {"read_gb_s", Spread(read)},
               {"fma_gflop_s", Spread(fma)},
               {"prefill_flop_share", Share(bench::Median(prefill) * prompt_flop / flop_rate)},
               {"weight_bytes", model.weights->bytes()},
               {"computed_tokens", stats.computed},
               {"cache_tokens", stats.cache_tokens},
               {"cache_bytes", std::llround(double(stats.cache_tokens) * row)},
               {"rss_bytes", ResidentBytes()},
               {"runs", options.runs}};
  if (!decode.empty()) {
    line["decode_tok_s"] = Spread(decode);
    const double rate = bench::Median(read) * 1e9;
    line["limit_share"] = Share(bench::Median(decode) * bytes / rate);
    const double keys = options.prompt + options.new_tokens / 2.0;
    const double flop = 2 * (weights + engine::AttentionPerToken(model.config, keys));
    line["decode_flop_share"] = Share(bench::Median(decode) * flop / flop_rate);
  }
  if (drafted > 0) {
    line["drafted"] = drafted;
    line["acceptance"] = Share(double(accepted) / double(drafted));
  }
  PrintLine(line.dump());
}

}  // namespace

int Bench(const Arguments& arguments) {
  Options options;
  bool cache_report = false, json = false;
  Args args("temper bench", "Measures prefill and decode, and the memory rate beside them.");
  args.Text("--model", "DIR", "model folder", &options.model).Required();
  args.Text("--batch", "N,N", "samples decoded together", &options.batches);
  args.Text("--ids", "F.json", "[[ids...]]: the prompt, instead of a random one", &options.ids);
  args.Integer("--prompt", "tokens of the prompt, which the samples share", 1, INT_MAX,
               &options.prompt);
  args.Integer("--new", "tokens a sample", 1, INT_MAX, &options.new_tokens);
  args.Text("--dtype", "M", "fp32, bf16, fp8 or fp8-w8a8", &options.dtype);
  args.Text("--cache-dtype", "C", "fp32, bf16 or fp8; bf16 where dtype is not fp32",
            &options.cache_dtype);
  args.Text("--speculation", "S", "drafts of the MTP layers: auto, on or off", &options.drafts);
  args.Number("--temperature", "0 is greedy", 0, 1e6, &options.temperature);
  args.Integer("--seed", "of prompt and samples", std::int64_t{0}, INT_MAX, &options.seed);
  args.Integer("--runs", "a batch size; rates are their minimum, median and maximum", 1, 1000,
               &options.runs);
  args.Integer("--threads", "0 = all cores", 0, 4096, &options.threads);
  args.Text("--device", "D",
            "cpu, or in a build with CUDA cuda:N, or cuda:N-M: experts over all of these",
            &options.device);
  args.Text("--arithmetic", "A", "canon-1, or cuda-1 on a device: tensor cores' sums",
            &options.arithmetic);
  args.Flag("--cache-report", "bytes a token needs in the cache, by layout, instead",
            &cache_report);
  args.Flag("--json", "as it is anyway", &json);
  if (!args.Parse(arguments)) return 0;
  const std::vector<int> batches = Batches(args, options.batches);
  if (options.drafts != "auto" && options.drafts != "on" && options.drafts != "off")
    args.Fail("--speculation: \"" + options.drafts + "\" must be auto, on or off");
  if (options.cache_dtype.empty()) options.cache_dtype = options.dtype == "fp32" ? "fp32" : "bf16";
  options.threads = Threads(options.threads);
  const engine::Numerics numerics = engine::WithArithmetic(
      engine::ParseNumerics(options.dtype, options.cache_dtype, "pow2"), options.arithmetic);
  engine::CheckDevice(options.device);
  if (cache_report) return CacheReport(options.model, options.threads);
  const Model model = LoadModel(options.model, numerics);
  options.prompt = static_cast<int>(Prompt(options, Valid(model)).size());
  for (int batch : batches) Report(model, options, batch);
  return 0;
}

}  // namespace temper::cli
