#include "engine/probe.h"

#include <algorithm>
#include <climits>

#include "configs/error.h"
#include "configs/json.h"
#include "engine/forward.h"
#include "engine/row_batch.h"
#include "engine/safetensors.h"
#include "kernels/sampling.h"

namespace temper::engine {

Sequences ReadSequences(const std::string& path, int vocab) {
  const Json json = configs::ReadJsonFile(path);
  const std::string rule = "; the file must be a list of lists of token ids";
  if (!json.is_array()) throw UserError(path + ": not a list" + rule);
  Sequences sequences;
  for (const Json& row : json) {
    const std::string where = path + ": sequence " + std::to_string(sequences.size());
    if (!row.is_array() || row.empty()) {
      throw UserError(where + ": " + (row.is_array() ? "empty" : "not a list") + rule);
    }
    std::vector<std::int32_t> ids;
    for (const Json& id : row) {
      ids.push_back(std::int32_t(
          configs::GetInt(id, where + ", id " + std::to_string(ids.size()), 0, vocab - 1)));
    }
    sequences.push_back(std::move(ids));
  }
  return sequences;
}

std::vector<int> ParsePromptLens(const std::string& text) {
  if (text.empty()) return {};
  Json list = configs::ParseJson(text, "--prompt-lens");
  if (!list.is_array()) list = Json::array({list});
  std::vector<int> lens;
  for (const Json& item : list)
    lens.push_back(static_cast<int>(configs::GetInt(item, "--prompt-lens", 1, INT_MAX)));
  return lens;
}

std::vector<int> PromptLengths(const std::vector<int>& given, const Sequences& sequences) {
  std::vector<int> lengths(sequences.size(), 1);
  if (given.size() == 1) std::fill(lengths.begin(), lengths.end(), given[0]);
  if (given.size() > 1) {
    if (given.size() != sequences.size()) {
      throw UserError("--prompt-lens: " + std::to_string(given.size()) + " lengths for " +
                      std::to_string(sequences.size()) +
                      " sequences; give one each, or one for all");
    }
    lengths = given;
  }
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (lengths[i] < 1 || lengths[i] > int(sequences[i].size())) {
      throw UserError("--prompt-lens: " + std::to_string(lengths[i]) + " for sequence " +
                      std::to_string(i) + " of " + std::to_string(sequences[i].size()) +
                      " tokens; must be in [1, its length]");
    }
  }
  return lengths;
}

namespace {

struct Loaded {
  ModelConfig config;
  Weights weights;
  Sequences sequences;
  kernels::ThreadPool pool;
  int moe_layers;

  explicit Loaded(const ProbeOptions& o)
      : config(ReadModelConfig(o.model)),
        weights(Weights::Load(o.model, config, ParseNumerics(o.dtype, o.cache_dtype, o.fp8_scale))),
        sequences(ReadSequences(o.ids, config.vocab_size)),
        pool(o.threads),
        moe_layers(config.moe_layers()) {
    if (o.chunk < 1 || o.batch < 1) throw UserError("--chunk and --batch must be at least 1");
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      if (int(sequences[i].size()) > config.max_positions) {
        throw UserError(o.ids + ": sequence " + std::to_string(i) + " has " +
                        std::to_string(sequences[i].size()) + " tokens; the model has " +
                        std::to_string(config.max_positions) + " positions");
      }
    }
  }
};

/// Copies the expert ids of rows into experts[sequence][layer][position].
void FileExperts(std::vector<std::int32_t>& out, int layer, int length, int top_k, int position,
                 const std::int32_t* ids) {
  std::copy_n(ids, top_k, out.begin() + (std::int64_t(layer) * length + position) * top_k);
}

/// The j-th MTP layer's rows of a sequence of t tokens, and the name of its logits.
int MtpRows(int t, int j) { return std::max(0, t - 1 - j); }
std::string MtpName(int j) {
  return j == 0 ? "mtp_logits." : "mtp" + std::to_string(j + 1) + "_logits.";
}

}  // namespace

void ProbeLogits(const ProbeOptions& o) {
  Loaded l(o);
  const ModelConfig& c = l.config;
  const std::int64_t v = c.vocab_size, h = c.hidden_size;
  std::vector<SafetensorsWriter::Entry> entries;
  for (std::size_t i = 0; i < l.sequences.size(); ++i) {
    const std::int64_t t = std::int64_t(l.sequences[i].size());
    const std::string n = std::to_string(i);
    entries.push_back({"logits." + n, Dtype::kF32, {t, v}});
    entries.push_back({"experts." + n, Dtype::kI32, {l.moe_layers, t, c.top_k}});
    for (int j = 0; j < c.mtp_layers; ++j) {
      entries.push_back({MtpName(j) + n, Dtype::kF32, {MtpRows(int(t), j), v}});
    }
  }
  SafetensorsWriter writer(o.out, entries);
  Forward forward(l.weights, l.pool);
  for (const std::vector<std::int32_t>& ids : l.sequences) {
    const int t = int(ids.size());
    LatentCache cache(forward.CacheBytes(c.num_layers));
    LatentRows rows(&cache);
    std::vector<float> hidden(std::size_t(t) * h), logits(std::size_t(t) * v);
    std::vector<std::int32_t> experts(std::size_t(l.moe_layers) * t * c.top_k);
    for (int first = 0; first < t; first += o.chunk) {
      const int m = std::min(o.chunk, t - first);
      RowBatch batch;
      for (int i = 0; i < m; ++i) batch.Add(rows, ids[first + i]);
      forward.Hidden(batch.View(), hidden.data() + first * h,
                     [&](int layer, const std::int32_t* chosen) {
                       for (int i = 0; i < m; ++i) {
                         FileExperts(experts, layer, t, c.top_k, first + i, chosen + i * c.top_k);
                       }
                     });
      forward.Logits(hidden.data() + first * h, m, logits.data() + first * v);
    }
    writer.WriteFloats(logits);
    writer.WriteInts(experts);
    // Layer j reads token t + j + 1 beside the state before it: of the main model, then of layer j
    // - 1.
    for (int j = 0; j < c.mtp_layers; ++j) {
      const int count = MtpRows(t, j);
      std::vector<float> mtp(std::size_t(count) * v), out(std::size_t(count) * h);
      LatentCache mtp_cache(forward.CacheBytes(1));
      LatentRows mtp_rows(&mtp_cache);
      for (int first = 0; first < count; first += o.chunk) {
        const int m = std::min(o.chunk, count - first);
        RowBatch batch;
        for (int i = 0; i < m; ++i) batch.Add(mtp_rows, ids[first + i + j + 1]);
        forward.Mtp(j, batch.View(), hidden.data() + first * h, out.data() + first * h);
        forward.Logits(out.data() + first * h, m, mtp.data() + first * v);
      }
      writer.WriteFloats(mtp);
      hidden = std::move(out);
    }
  }
  writer.Close();
}

void WriteLogprobs(const std::string& path, const Sequences& sequences, int moe_layers, int top_k,
                   const LogprobsResult& result) {
  std::vector<SafetensorsWriter::Entry> entries;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const std::int64_t t = std::int64_t(sequences[i].size());
    entries.push_back({"logp." + std::to_string(i), Dtype::kF32, {t - 1}});
    entries.push_back({"experts." + std::to_string(i), Dtype::kI32, {moe_layers, t, top_k}});
  }
  SafetensorsWriter writer(path, entries);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    writer.WriteFloats(result.logp[i]);
    writer.WriteInts(result.experts[i]);
  }
  writer.Close();
}

void ProbeLogprobs(const ProbeOptions& o) {
  Loaded l(o);
  const ModelConfig& c = l.config;
  const std::vector<int> prompt = PromptLengths(o.prompt_lens, l.sequences);
  const std::size_t count = l.sequences.size(), h = c.hidden_size, v = c.vocab_size;
  LogprobsResult result;
  result.logp.resize(count);
  for (const auto& ids : l.sequences) {
    result.experts.emplace_back(std::size_t(l.moe_layers) * ids.size() * c.top_k);
  }
  Forward forward(l.weights, l.pool);
  LatentCache cache(forward.CacheBytes(c.num_layers));
  std::vector<float> hidden, logits, logp;

  for (std::size_t first = 0; first < count; first += o.batch) {
    const std::size_t last = std::min(count, first + o.batch);
    std::vector<LatentRows> rows(last - first, LatentRows(&cache));
    // A sequence's next tokens: a chunk of the prompt, or one token; all sequences in one forward
    // until none is left.
    while (true) {
      RowBatch batch;
      std::vector<std::size_t> owner;
      int budget = o.chunk;
      for (std::size_t s = first; s < last; ++s) {
        LatentRows& r = rows[s - first];
        const auto& ids = l.sequences[s];
        if (r.size() >= int(ids.size())) continue;
        int take = r.size() < prompt[s] ? std::min(prompt[s] - r.size(), budget) : 1;
        if (r.size() < prompt[s]) budget -= take;
        for (; take > 0; --take) {
          batch.Add(r, ids[r.size()]);
          owner.push_back(s);
        }
      }
      const int m = int(owner.size());
      if (m == 0) break;
      hidden.resize(m * h);
      logits.resize(m * v);
      logp.resize(m);
      std::vector<std::int32_t> target(m);
      forward.Hidden(batch.View(), hidden.data(), [&](int layer, const std::int32_t* chosen) {
        for (int i = 0; i < m; ++i) {
          FileExperts(result.experts[owner[i]], layer, int(l.sequences[owner[i]].size()), c.top_k,
                      batch.positions[i], chosen + std::int64_t(i) * c.top_k);
        }
      });
      forward.Logits(hidden.data(), m, logits.data());
      for (int i = 0; i < m; ++i) {
        const auto& ids = l.sequences[owner[i]];
        const std::size_t next = batch.positions[i] + 1;
        target[i] = next < ids.size() ? ids[next] : 0;
      }
      kernels::TokenLogProbs(logits.data(), v, m, int(v), 1.0f, target.data(), logp.data(), l.pool);
      for (int i = 0; i < m; ++i) {
        if (std::size_t(batch.positions[i]) + 1 < l.sequences[owner[i]].size()) {
          result.logp[owner[i]].push_back(logp[i]);
        }
      }
    }
  }
  WriteLogprobs(o.out, l.sequences, l.moe_layers, c.top_k, result);
}

}  // namespace temper::engine
