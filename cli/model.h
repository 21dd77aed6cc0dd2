#pragma once
// A model folder loaded for generation, and prompts sampled from it in order.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "configs/json.h"
#include "engine/data/row_ids.h"
#include "engine/engine.h"
#include "engine/model_config.h"
#include "engine/tokenizer.h"
#include "engine/weights.h"

namespace temper::cli {

/// Threads for a wish of 0: all that this process may use.
int Threads(int wish);

struct Model {
  engine::ModelConfig config;
  std::shared_ptr<engine::Weights> weights;
  engine::Tokenizer tokenizer;
  std::vector<std::int32_t> stop_ids;  // config.json's and the tokenizer's end of sequence
};
Model LoadModel(const std::string& dir, const engine::Numerics& numerics = {});

struct Sampling {
  int n = 1;  // samples a prompt
  int max_new_tokens = 128;
  kernels::SampleParams params;
  std::uint64_t seed = 0;
  std::vector<std::string> stops;  // text that ends a sample and is left out of it
  int threads = 1;
  engine::Numerics numerics;
  std::string device = "cpu";
};

struct Completion {
  std::size_t prompt = 0;  // index into the prompts; also the group of its random numbers
  engine::FinishedSample sample;
  std::string text;  // without special tokens and the stop string
};

/// Gives every completion, by prompt, then by sample. Returns the seconds it took.
double SampleAll(const Model& model, const std::vector<std::vector<std::int32_t>>& prompts,
                 const Sampling& sampling, const std::function<void(Completion)>& give);

/// The line of `generate` (docs/formats.md).
Json CompletionJson(const Completion& completion, const std::vector<std::int32_t>& prompt,
                    std::uint64_t seed);

}  // namespace temper::cli
