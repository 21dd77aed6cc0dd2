#include "cli/cache_report.h"

#include <algorithm>
#include <cmath>

#include "cli/model.h"
#include "cli/program.h"
#include "engine/engine.h"
#include "kernels/cache_row.h"

namespace temper::cli {
namespace {

/// Bytes a token and layer that the pages of an engine hold after a prompt of whole pages.
double Measure(const std::shared_ptr<engine::Weights>& weights, int threads) {
  const engine::ModelConfig& c = weights->config();
  engine::EngineOptions options;
  options.threads = threads;
  options.speculation = engine::Speculation::kOff;
  engine::Engine engine(weights, options);
  const int tokens = std::max(16, std::min(512, c.max_positions / 2) / 16 * 16);
  engine::GroupRequest request;
  for (int i = 0; i < tokens; ++i) request.prompt.push_back(i % c.vocab_size);
  request.samples = {0};
  request.max_new_tokens = 2;
  engine.Add(std::move(request));
  std::vector<engine::FinishedSample> finished;
  while (engine.stats().generated == 0) engine.Step(&finished);
  return double(engine.cache_bytes()) / (double(tokens) * c.num_layers);
}

void Line(const char* layout, const std::string& dtype, double bytes, int layers, double mha,
          const Json& measured) {
  PrintLine(Json{{"layout", layout},
                 {"dtype", dtype},
                 {"bytes_per_token_layer", bytes},
                 {"measured", measured},
                 {"bytes_per_token", bytes * layers},
                 {"less_than_mha", std::round(1000 * (1 - bytes / mha)) / 1000}}
                .dump());
}

}  // namespace

int CacheReport(const std::string& model_dir, int threads) {
  const engine::ModelConfig c = engine::ReadModelConfig(model_dir);
  const double head = c.qk_dim() + c.v_dim;  // a key and a value of one head
  for (const char* dtype : {"bf16", "fp8"}) {
    const double width = dtype[0] == 'b' ? 2 : 1;
    const double mha = c.heads * head * width;
    Line("mha", dtype, mha, c.num_layers, mha, nullptr);
    Line("gqa-8", dtype, std::min(8, c.heads) * head * width, c.num_layers, mha, nullptr);
    Line("mqa", dtype, head * width, c.num_layers, mha, nullptr);
    const engine::Numerics numerics = engine::ParseNumerics("fp32", dtype, "pow2");
    const auto weights =
        std::make_shared<engine::Weights>(engine::Weights::Load(model_dir, c, numerics));
    Line("mla", dtype,
         double(kernels::CacheRowBytes(numerics.cache, c.kv_lora_rank, c.qk_rope_dim)),
         c.num_layers, mha, Measure(weights, threads));
  }
  // The 93.3 % of the DeepSeek-V2 paper (arXiv 2405.04434, sec. 1 and 3.2.3): V2's 60 layers of 512
  // + 64 at 6 bits against DeepSeek 67B's 95 layers of 8 KV heads of 128 in BF16.
  const double v2 = 60 * (512 + 64) * 6 / 8.0, dense = 95 * 2 * 8 * 128 * 2;
  PrintLine(Json{{"layout", "deepseek-v2 (6 bits) against deepseek-67b (bf16)"},
                 {"bytes_per_token", {v2, dense}},
                 {"reduction", std::round(1000 * (1 - v2 / dense)) / 1000}}
                .dump());
  return 0;
}

}  // namespace temper::cli
