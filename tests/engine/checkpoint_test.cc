#include "engine/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <map>

#include "engine/tokenizer.h"
#include "tests/engine/temp_dir.h"
#include "tests/engine/tiny_model.h"

namespace temper::engine {
namespace {

const std::string kBytes = TEMPER_SOURCE_DIR "/configs/tokenizers/bytes";

using Tensors = std::map<std::string, std::vector<float>>;

Tensors MakeTensors(const ModelConfig& config) {
  Tensors out;
  int n = 0;
  for (const TensorSpec& spec : RequiredTensors(config)) {
    auto& values = out[spec.name];
    for (std::int64_t i = 0; i < spec.count(); ++i) {
      values.push_back(static_cast<float>((n + i) % 251) - 125.0f);  // exact in BF16
    }
    n += 7;
  }
  return out;
}

void WriteModel(const std::string& dir, const ModelConfig& config, const Tensors& tensors,
                Dtype dtype = Dtype::kF32, std::uint64_t shard_bytes = std::uint64_t{4} << 30) {
  WriteCheckpoint(
      dir, config, dtype, kBytes,
      [&](const TensorSpec& spec) { return std::span<const float>(tensors.at(spec.name)); },
      shard_bytes);
}

Tensors ReadModel(const std::string& dir) {
  Tensors out;
  std::vector<std::string> order;
  const ModelConfig config = ReadModelConfig(dir);
  ReadCheckpointValues(dir, config, [&](const TensorSpec& spec, std::span<const float> values) {
    out[spec.name].assign(values.begin(), values.end());
    order.push_back(spec.name);
  });
  std::vector<std::string> want;
  for (const TensorSpec& spec : RequiredTensors(config)) want.push_back(spec.name);
  EXPECT_EQ(order, want);
  return out;
}

// Rewrites one single-file checkpoint after `change` had its way with the list of tensors.
using Entries = std::vector<std::pair<SafetensorsWriter::Entry, std::vector<float>>>;
void Rewrite(const std::string& dir, const std::function<void(Entries&)>& change) {
  const std::string path = dir + "/model.safetensors";
  Entries entries;
  {
    const SafetensorsFile file(path);
    for (const auto& [name, info] : file.tensors()) {
      entries.push_back({{name, info.dtype, info.shape}, file.ReadFloats(name)});
    }
  }
  change(entries);
  std::vector<SafetensorsWriter::Entry> heads;
  for (const auto& [entry, values] : entries) heads.push_back(entry);
  SafetensorsWriter writer(path, heads);
  for (const auto& [entry, values] : entries) writer.WriteFloats(values);
  writer.Close();
}

std::string ReadRefusal(const std::string& dir, const ModelConfig& config) {
  return Refusal(
      [&] { ReadCheckpointValues(dir, config, [](const TensorSpec&, std::span<const float>) {}); });
}

TEST(Checkpoint, WhatIsWrittenIsReadBackInEveryForm) {
  for (const bool q_lora : {true, false}) {
    for (const bool tied : {true, false}) {
      Json json = TinyConfig(q_lora).raw;
      json["tie_word_embeddings"] = tied;
      const ModelConfig config = ParseModelConfig(json, "c");
      const Tensors tensors = MakeTensors(config);
      EXPECT_EQ(tensors.count("lm_head.weight"), tied ? 0u : 1u);
      for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
        for (const std::uint64_t shard : {std::uint64_t{100'000}, std::uint64_t{4} << 30}) {
          const TempDir dir;
          WriteModel(dir.path(), config, tensors, dtype, shard);
          EXPECT_EQ(ReadModel(dir.path()), tensors);
          EXPECT_EQ(std::filesystem::exists(dir / "model.safetensors.index.json"),
                    shard < 1'000'000);
          const CheckpointReader reader(dir.path());
          EXPECT_EQ(reader.Info("model.layers.1.mlp.gate.e_score_correction_bias").dtype,
                    Dtype::kF32);
          EXPECT_EQ(reader.Info("model.layers.1.mlp.gate.weight").dtype, dtype);
          EXPECT_EQ(reader.ReadFloats("model.layers.3.shared_head.head.weight"),
                    tensors.at(tied ? "model.embed_tokens.weight" : "lm_head.weight"));
        }
      }
    }
  }
}

TEST(Checkpoint, TheConfigIsWrittenBackWithTheNewDtype) {
  const TempDir dir;
  Json json = TinyConfig().raw;
  json["dtype"] = "float32";
  json["unknown_field"] = {1, 2};
  const ModelConfig config = ParseModelConfig(json, "c");
  WriteModel(dir.path(), config, MakeTensors(config), Dtype::kBf16);
  json["dtype"] = "bfloat16";
  json["torch_dtype"] = "bfloat16";
  EXPECT_EQ(configs::ReadJsonFile(dir / "config.json"), json);
  EXPECT_EQ(ReadText(dir / "tokenizer.json"), ReadText(kBytes + "/tokenizer.json"));
  EXPECT_EQ(Tokenizer(dir.path()).size(), 259);
}

TEST(Checkpoint, AllDisagreementsAreNamedBeforeAnyTensorIsGiven) {
  const TempDir dir;
  const ModelConfig config = TinyConfig();
  WriteModel(dir.path(), config, MakeTensors(config));
  Rewrite(dir.path(), [](Entries& entries) {
    Entries kept;
    for (auto& [entry, values] : entries) {
      if (entry.name == "model.norm.weight") continue;
      if (entry.name == "lm_head.weight") entry.shape = {72, 101};
      if (entry.name == "model.layers.3.embed_tokens.weight") values[5] += 1;
      if (entry.name == "model.layers.0.mlp.up_proj.weight")
        entry.name = "model.layers.0.mlp.up.weight";
      kept.push_back({entry, values});
    }
    entries = std::move(kept);
  });
  int given = 0;
  EXPECT_EQ(
      Refusal([&] {
        ReadCheckpointValues(dir.path(), config,
                       [&](const TensorSpec&, std::span<const float>) { ++given; });
      }),
      dir.path() +
          ": the weights do not fit config.json: \"model.layers.0.mlp.up_proj.weight\" is "
          "missing; \"model.norm.weight\" is missing; \"lm_head.weight\" has shape [72, 101] "
          "instead of [101, 72]; \"model.layers.3.embed_tokens.weight\" differs from "
          "\"model.embed_tokens.weight\", with which it is shared; "
          "\"model.layers.3.shared_head.head.weight\" differs from \"lm_head.weight\", with "
          "which it is shared; \"model.layers.0.mlp.up.weight\" is not a tensor of this model");
  EXPECT_EQ(given, 0);
}

TEST(Checkpoint, AWholeWrongModelGivesAShortError) {
  const TempDir dir;
  WriteModel(dir.path(), TinyConfig(true, 1), MakeTensors(TinyConfig(true, 1)));
  const std::string what = ReadRefusal(dir.path(), TinyConfig(false, 0));
  EXPECT_NE(what.find("more"), std::string::npos);
  EXPECT_LT(what.size(), 3000u);
}

TEST(Checkpoint, MtpCopiesMayBeLeftOutAndATiedHeadMayBeRepeated) {
  const TempDir dir;
  Json json = TinyConfig().raw;
  json["tie_word_embeddings"] = true;
  const ModelConfig config = ParseModelConfig(json, "c");
  const Tensors tensors = MakeTensors(config);
  WriteModel(dir.path(), config, tensors);
  Rewrite(dir.path(), [&](Entries& entries) {
    std::erase_if(entries, [](const auto& e) {
      return e.first.name == "model.layers.3.embed_tokens.weight" ||
             e.first.name == "model.layers.3.shared_head.head.weight";
    });
    entries.push_back(
        {{"lm_head.weight", Dtype::kF32, {101, 72}}, tensors.at("model.embed_tokens.weight")});
    entries.push_back({{"model.layers.0.self_attn.rotary_emb.inv_freq", Dtype::kF32, {2}}, {1, 2}});
  });
  EXPECT_EQ(ReadModel(dir.path()), tensors);
  Rewrite(dir.path(), [](Entries& entries) {
    for (auto& [entry, values] : entries) {
      if (entry.name == "lm_head.weight") values[0] += 1;
    }
  });
  EXPECT_NE(ReadRefusal(dir.path(), config).find("\"lm_head.weight\" differs"), std::string::npos);
}

TEST(Checkpoint, AConfigThatPromisesAnMtpLayerTheWeightsLackIsReadWithoutIt) {
  // transformers writes num_nextn_predict_layers 1 and no such tensors.
  const TempDir dir;
  Json json = TinyConfig(true, 0).raw;
  const ModelConfig config = ParseModelConfig(json, "c");
  WriteModel(dir.path(), config, MakeTensors(config));
  json["num_nextn_predict_layers"] = 1;
  dir.Write("config.json", json.dump());
  const ModelConfig read = ReadModelConfig(dir.path());
  EXPECT_EQ(read.mtp_layers, 0);
  EXPECT_EQ(read.raw.at("num_nextn_predict_layers"), 0);
  EXPECT_EQ(ReadModel(dir.path()), MakeTensors(config));
}

TEST(Checkpoint, NonFiniteWeightsAreRefusedByName) {
  const ModelConfig config = TinyConfig(true, 0);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const TempDir dir;
    Tensors tensors = MakeTensors(config);
    tensors.at("model.norm.weight")[9] = bad;
    WriteModel(dir.path(), config, tensors, Dtype::kBf16);
    EXPECT_EQ(
        ReadRefusal(dir.path(), config),
        dir.path() + "/model.safetensors: tensor \"model.norm.weight\": element 9 is not finite");
  }
}

TEST(Checkpoint, AnIndexCannotLeaveItsFolder) {
  const TempDir outer;
  std::filesystem::create_directory(outer / "m");
  SafetensorsWriter writer(outer / "secret.safetensors", {{"x", Dtype::kF32, {1}}});
  writer.WriteFloats(std::vector<float>{1});
  writer.Close();
  for (const std::string& name :
       {std::string("../secret.safetensors"), outer / "secret.safetensors",
        std::string("a/../../secret.safetensors"), std::string("..\\secret.safetensors"),
        std::string("..safetensors"), std::string(""), std::string("."),
        std::string("x\0.safetensors", 14), std::string("http://h/x.safetensors"),
        std::string("x.bin"), std::string(5000, 'x') + ".safetensors",
        std::string(".hidden.safetensors")}) {
    outer.Write("m/model.safetensors.index.json", Json{{"weight_map", {{"x", name}}}}.dump());
    const std::string what = Refusal([&] { CheckpointReader reader(outer / "m"); });
    EXPECT_NE(what.find("must be a *.safetensors file directly in the model folder"),
              std::string::npos)
        << name << ": " << what;
    EXPECT_LT(what.size(), 500u);
  }
}

TEST(Checkpoint, AnIndexAndItsShardsMustAgree) {
  const TempDir dir;
  for (const char* name : {"a", "b"}) {
    SafetensorsWriter writer(dir / (std::string(name) + ".safetensors"),
                             {{"x", Dtype::kF32, {1}}, {name, Dtype::kF32, {1}}});
    for (const float value : {1.0f, 2.0f}) writer.WriteFloats(std::span(&value, 1));
    writer.Close();
  }
  const auto refused = [&](const std::string& index) {
    dir.Write("model.safetensors.index.json", index);
    std::string what = Refusal([&] { CheckpointReader reader(dir.path()); });
    const std::size_t at = what.find("index.json: ");
    return at == what.npos ? what : what.substr(at + 12);
  };
  EXPECT_EQ(refused("[]"), "weight_map is missing: it must map tensor names to files");
  EXPECT_EQ(refused("{\"weight_map\": 3}"),
            "weight_map is missing: it must map tensor names to files");
  EXPECT_EQ(refused("{\"weight_map\": {\"x\": 3}}"), "weight_map: \"x\" must name a file");
  EXPECT_EQ(refused("{\"weight_map\": {\"x\": \"a.safetensors\", \"x\": \"b.safetensors\"}}")
                .substr(0, 4),
            dir.path().substr(0, 4));
  EXPECT_EQ(refused("{\"weight_map\": {\"y\": \"a.safetensors\"}}"),
            "weight_map: tensor \"y\" is not in a.safetensors");
  EXPECT_EQ(refused("{\"weight_map\": {\"x\": \"a.safetensors\"}}"),
            "weight_map leaves out tensor \"a\" of a.safetensors");
  EXPECT_EQ(refused("{\"weight_map\": {\"x\": \"a.safetensors\", \"a\": \"a.safetensors\", \"b\": "
                    "\"b.safetensors\"}}"),
            "tensor \"x\" is in b.safetensors too");
  EXPECT_NE(refused("{\"weight_map\": {\"x\": \"c.safetensors\"}}")
                .find("c.safetensors: cannot be opened"),
            std::string::npos);
}

TEST(Checkpoint, FilesMaySitBehindSymlinksAsInADownloadCache) {
  const TempDir dir;
  const ModelConfig config = TinyConfig(true, 0);
  WriteModel(dir.path(), config, MakeTensors(config));
  std::filesystem::create_directory(dir / "blobs");
  std::filesystem::rename(dir / "model.safetensors", dir / "blobs/abc");
  std::filesystem::create_symlink("blobs/abc", dir / "model.safetensors");
  EXPECT_EQ(ReadModel(dir.path()), MakeTensors(config));
}

TEST(Checkpoint, AFolderWithoutOrWithTwoSetsOfWeightsIsRefused) {
  const TempDir dir;
  EXPECT_NE(Refusal([&] { CheckpointReader reader(dir.path()); }).find("no weights"),
            std::string::npos);
  dir.Write("pytorch_model.bin", "\x80\x02pickle");
  EXPECT_NE(Refusal([&] { CheckpointReader reader(dir.path()); }).find("no weights"),
            std::string::npos);
  const ModelConfig config = TinyConfig(true, 0);
  WriteModel(dir.path(), config, MakeTensors(config));
  WriteModel(dir.path(), config, MakeTensors(config), Dtype::kF32, 20'000);
  EXPECT_NE(Refusal([&] { CheckpointReader reader(dir.path()); }).find("which weights are meant"),
            std::string::npos);
}

// ---------------------------------------------------------------- init

std::string WriteArch(const TempDir& dir, const Json& changes = Json::object()) {
  Json json = TinyConfig(true, 1).raw;
  json["vocab_size"] = 264;
  json.update(changes);
  return dir.Write("arch.json", json.dump());
}

TEST(InitModel, TheSameSeedGivesTheSameBytesAndAnotherSeedOthers) {
  const TempDir dir;
  const std::string arch = WriteArch(dir);
  InitModel(arch, kBytes, 7, Dtype::kF32, dir / "a");
  InitModel(arch, kBytes, 7, Dtype::kF32, dir / "b/");
  InitModel(arch, kBytes, 8, Dtype::kF32, dir / "c");
  EXPECT_EQ(ReadText(dir / "a/model.safetensors"), ReadText(dir / "b/model.safetensors"));
  EXPECT_NE(ReadText(dir / "a/model.safetensors"), ReadText(dir / "c/model.safetensors"));
  const Tensors a = ReadModel(dir / "a");
  EXPECT_NE(a.at("model.layers.0.input_layernorm.weight"),
            a.at("model.layers.1.mlp.gate.e_score_correction_bias"));
  EXPECT_EQ(a.at("model.norm.weight"), std::vector<float>(72, 1.0f));
  EXPECT_EQ(a.at("model.layers.3.mlp.gate.e_score_correction_bias"), std::vector<float>(8, 0.0f));
  // Two values from an independent implementation: the generator may never change.
  EXPECT_EQ(a.at("lm_head.weight")[0], 0x1.996e3ap-8f);
  EXPECT_EQ(a.at("model.embed_tokens.weight")[1], -0x1.ed584cp-10f);
}

TEST(InitModel, WeightsAreNormalWithTheConfiguredRange) {
  const TempDir dir;
  InitModel(WriteArch(dir, {{"initializer_range", 0.5}}), kBytes, 1, Dtype::kF32, dir / "m");
  const std::vector<float> w = ReadModel(dir / "m").at("model.layers.0.self_attn.o_proj.weight");
  const double n = static_cast<double>(w.size());
  ASSERT_GT(n, 3000);
  double m1 = 0, m2 = 0, m4 = 0, lag = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double x = w[i] / 0.5;
    m1 += x / n;
    m2 += x * x / n;
    m4 += x * x * x * x / n;
    lag += i ? x * w[i - 1] / 0.5 / n : 0;
  }
  EXPECT_NEAR(m1, 0, 4 / std::sqrt(n));
  EXPECT_NEAR(m2, 1, 4 * std::sqrt(2 / n));
  EXPECT_NEAR(m4, 3, 4 * std::sqrt(96 / n));
  EXPECT_NEAR(lag, 0, 4 / std::sqrt(n));
}

TEST(InitModel, AppearsWholeOrNotAtAll) {
  const TempDir dir;
  const std::string arch = WriteArch(dir);
  std::filesystem::create_directory(dir / "there");
  EXPECT_EQ(Refusal([&] { InitModel(arch, kBytes, 1, Dtype::kF32, dir / "there"); }),
            dir / "there: exists already: choose another");
  EXPECT_NE(Refusal([&] { InitModel(arch, kBytes, 1, Dtype::kF32, dir / "no/parent"); }), "");
  EXPECT_NE(Refusal([&] { InitModel(arch, dir.path(), 1, Dtype::kF32, dir / "m"); }), "");
  EXPECT_NE(Refusal([&] {
              InitModel(arch, kBytes, 1, Dtype::kF16, dir / "m");
            }).find("weights are written as fp32, bf16 or fp8, not as F16"),
            std::string::npos);
  const std::string small = WriteArch(dir, {{"vocab_size", 200}});
  EXPECT_NE(Refusal([&] {
              InitModel(small, kBytes, 1, Dtype::kF32, dir / "m");
            }).find("vocab_size 200 is smaller than the tokenizer's 259 ids"),
            std::string::npos);
  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path()))
    left.push_back(entry.path().filename());
  std::sort(left.begin(), left.end());
  EXPECT_EQ(left, (std::vector<std::string>{"arch.json", "there"}));
}

}  // namespace
}  // namespace temper::engine
