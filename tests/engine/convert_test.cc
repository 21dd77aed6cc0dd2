// Storage forms: what init and convert write, read back.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "engine/checkpoint.h"
#include "engine/weights.h"
#include "kernels/bf16.h"
#include "tests/engine/temp_dir.h"
#include "tests/engine/tiny_model.h"

namespace temper::engine {
namespace {

using kernels::ScaleRecipe;
using Tensors = std::map<std::string, std::vector<float>>;

const std::string kBytes = TEMPER_SOURCE_DIR "/configs/tokenizers/bytes";
constexpr std::uint64_t kShard = 300'000;

// Widths around the block of 128, so that blocks end early.
Json Wide(const Json& changes = Json::object()) {
  Json json = TinyConfig(true, 1).raw;
  json.update({{"hidden_size", 136},
               {"intermediate_size", 300},
               {"moe_intermediate_size", 130},
               {"vocab_size", 264},
               {"q_lora_rank", 129}});
  json.update(changes);
  return json;
}

std::string Init(const TempDir& dir, const char* name, const Storage& storage,
                 const Json& arch = Wide(), std::uint64_t shard = kShard) {
  const std::string file = dir.Write("arch.json", arch.dump());
  InitModel(file, kBytes, 5, storage, dir / name, /*threads=*/2, shard);
  return dir / name;
}

Tensors ReadModel(const std::string& dir) {
  Tensors out;
  ReadCheckpointValues(dir, ReadModelConfig(dir),
                       [&](const TensorSpec& spec, std::span<const float> values) {
                         out[spec.name].assign(values.begin(), values.end());
                       });
  return out;
}

// Bytes of every tensor in the files, multipliers too.
std::map<std::string, std::string> FileBytes(const std::string& dir) {
  std::map<std::string, std::string> out;
  const CheckpointReader reader(dir);
  for (const std::string& name : reader.Names()) {
    const TensorInfo& info = reader.Info(name);
    std::string& bytes = out[name];
    bytes.resize(info.end - info.begin);
    reader.File(name).Read(name, std::as_writable_bytes(std::span(bytes)));
    bytes += DtypeName(info.dtype);
  }
  return out;
}

bool IsPow2(float x) {
  int exponent = 0;
  return std::frexp(x, &exponent) == 0.5f;
}

TEST(Convert, EveryPathToAFormGivesItsBytes) {
  const TempDir dir;
  const std::string fp32 = Init(dir, "fp32", Dtype::kF32), bf16 = Init(dir, "bf16", Dtype::kBf16);
  const std::string fp8 = Init(dir, "fp8", Dtype::kF8E4m3);
  EXPECT_TRUE(std::filesystem::exists(fp8 + "/model.safetensors.index.json"));
  ConvertModel(fp32, Dtype::kBf16, dir / "fp32-bf16", kShard);
  EXPECT_TRUE(FileBytes(dir / "fp32-bf16") == FileBytes(bf16));
  ConvertModel(fp32, Dtype::kF8E4m3, dir / "fp32-fp8", 1 << 30);
  EXPECT_TRUE(FileBytes(dir / "fp32-fp8") == FileBytes(fp8));
  ConvertModel(fp8, Dtype::kF8E4m3, dir / "fp8-fp8");
  EXPECT_TRUE(FileBytes(dir / "fp8-fp8") == FileBytes(fp8));
  ConvertModel(bf16, Dtype::kF32, dir / "bf16-fp32");
  ConvertModel(dir / "bf16-fp32", Dtype::kBf16, dir / "bf16-again");
  EXPECT_TRUE(FileBytes(dir / "bf16-again") == FileBytes(bf16));
  // FP32 of FP8 is code times multiplier, and BF16 that rounded.
  ConvertModel(fp8, Dtype::kF32, dir / "fp8-fp32");
  EXPECT_TRUE(ReadModel(dir / "fp8-fp32") == ReadModel(fp8));
  ConvertModel(fp8, Dtype::kBf16, dir / "fp8-bf16");
  Tensors rounded = ReadModel(fp8);
  for (auto& [name, values] : rounded) kernels::RoundBf16(values.data(), values.size());
  EXPECT_TRUE(ReadModel(dir / "fp8-bf16") == rounded);
}

TEST(Convert, PowersOfTwoAreExactInBf16AndKeptWhereTheyAre) {
  const TempDir dir;
  const std::string fp8 = Init(dir, "fp8", Dtype::kF8E4m3);
  const Storage pow2(Dtype::kF8E4m3, ScaleRecipe::kPow2);
  const std::string direct = Init(dir, "pow2", pow2);
  ConvertModel(fp8, pow2, dir / "fp8-pow2");
  const CheckpointReader reader(dir / "fp8-pow2");
  int scales = 0;
  for (const std::string& name : reader.Names()) {
    if (!name.ends_with("_scale_inv")) continue;
    ++scales;
    for (const float s : reader.ReadFloats(name)) EXPECT_TRUE(IsPow2(s)) << name << " " << s;
  }
  EXPECT_GT(scales, 20);
  ConvertModel(direct, pow2, dir / "again");
  EXPECT_TRUE(FileBytes(dir / "again") == FileBytes(direct));
  ConvertModel(direct, Dtype::kBf16, dir / "bf16");
  EXPECT_TRUE(ReadModel(dir / "bf16") == ReadModel(direct));
  ConvertModel(dir / "bf16", pow2, dir / "round");
  // A block whose largest code is below 448 may get a smaller multiplier, for the same values.
  EXPECT_TRUE(ReadModel(dir / "round") == ReadModel(direct));
}

TEST(Convert, TheConfigSaysHowTheWeightsAreStored) {
  const TempDir dir;
  const auto config = [&](const std::string& name) {
    return configs::ReadJsonFile(dir / name + "/config.json");
  };
  const std::string pow2 =
      Init(dir, "pow2", Storage(Dtype::kF8E4m3, ScaleRecipe::kPow2), Wide({{"note", "kept"}}));
  const Json block = {{"activation_scheme", "dynamic"},
                      {"fmt", "e4m3"},
                      {"quant_method", "fp8"},
                      {"weight_block_size", {128, 128}},
                      {"scale_fmt", "ue8m0"}};
  EXPECT_EQ(config("pow2").at("quantization_config"), block);
  EXPECT_EQ(config("pow2").at("torch_dtype"), "bfloat16");
  EXPECT_EQ(config("pow2").at("note"), "kept");
  ConvertModel(pow2, Dtype::kF32, dir / "fp32");
  EXPECT_FALSE(config("fp32").contains("quantization_config"));
  EXPECT_EQ(config("fp32").at("torch_dtype"), "float32");
  EXPECT_EQ(ReadText(dir / "fp32/tokenizer.json"), ReadText(kBytes + "/tokenizer.json"));
}

TEST(Convert, OnlyMatricesOfLayersAreCodes) {
  const TempDir dir;
  const CheckpointReader reader(Init(dir, "m", Dtype::kF8E4m3));
  for (const auto& [name, dtype] : std::map<std::string, Dtype>{
           {"model.embed_tokens.weight", Dtype::kBf16},
           {"lm_head.weight", Dtype::kBf16},
           {"model.layers.0.mlp.down_proj.weight", Dtype::kF8E4m3},
           {"model.layers.1.mlp.gate.weight", Dtype::kBf16},
           {"model.layers.1.mlp.gate.e_score_correction_bias", Dtype::kF32},
           {"model.layers.1.mlp.experts.7.up_proj.weight", Dtype::kF8E4m3},
           {"model.layers.1.self_attn.kv_a_layernorm.weight", Dtype::kBf16},
           {"model.layers.3.eh_proj.weight", Dtype::kBf16},
           {"model.layers.3.self_attn.kv_b_proj.weight", Dtype::kF8E4m3},
           {"model.layers.3.self_attn.kv_b_proj.weight_scale_inv", Dtype::kF32}}) {
    EXPECT_EQ(reader.Info(name).dtype, dtype) << name;
  }
  EXPECT_EQ(reader.Info("model.layers.0.mlp.down_proj.weight_scale_inv").shape,
            (std::vector<std::int64_t>{2, 3}));
}

TEST(Convert, AppearsWholeOrNotAtAll) {
  const TempDir dir;
  const std::string m = Init(dir, "m", Dtype::kF32);
  EXPECT_EQ(Refusal([&] { ConvertModel(m, Dtype::kBf16, m); }),
            m + ": exists already: choose another");
  // Found after the first tensors were written: the last one is a NaN.
  const ModelConfig config = ReadModelConfig(m);
  WriteCheckpoint(
      m, config, Dtype::kF32, kBytes,
      [&](const TensorSpec& spec, std::int64_t, std::int64_t rows) {
        static std::vector<float> values;
        const bool last = spec.name == RequiredTensors(config).back().name;
        values.assign(std::size_t(rows * Columns(spec)), last ? std::nanf("") : 1.0f);
        RowData data;
        data.values = values;
        return data;
      },
      kShard);
  EXPECT_NE(Refusal([&] { ConvertModel(m, Dtype::kBf16, dir / "out"); }).find("is not finite"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir / "out"));
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
    EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos) << entry.path();
  }
}

TEST(Convert, TellsOfEachTensorItWrites) {
  const TempDir dir;
  const std::string in = Init(dir, "in", Storage());
  std::vector<std::int64_t> told;
  std::int64_t total = 0;
  const StoreProgress progress = [&](std::int64_t done, std::int64_t of) {
    told.push_back(done);
    total = of;
  };
  ConvertModel(in, Storage(Dtype::kF8E4m3), dir / "out", kShard, progress);
  const ModelConfig config = ReadModelConfig(in);
  EXPECT_EQ(total, std::int64_t(RequiredTensors(config).size() + CopiedTensors(config).size()));
  ASSERT_EQ(std::int64_t(told.size()), total);
  for (std::size_t i = 0; i < told.size(); ++i) EXPECT_EQ(told[i], std::int64_t(i) + 1);
}

TEST(Convert, StorageIsNamedOrRefused) {
  EXPECT_EQ(ParseStorage("fp8", "pow2", "w").scale, ScaleRecipe::kPow2);
  EXPECT_EQ(ParseStorage("bf16", "fp32", "w").dtype, Dtype::kBf16);
  EXPECT_EQ(Refusal([] { ParseStorage("int4", "fp32", "w"); }),
            "w: \"int4\" must be fp32, bf16 or fp8");
  EXPECT_EQ(Refusal([] { ParseStorage("fp8", "fp16", "w"); }),
            "w: scale \"fp16\" must be fp32 or pow2");
}

TEST(Arch, EveryShapeIsOneThatWeRead) {
  const std::map<std::string, double> billions = {
      {"v2-lite", 15.706}, {"v2", 235.741}, {"v3", 682.636}};
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TEMPER_SOURCE_DIR "/configs/arch")) {
    const std::string path = entry.path().string();
    const ModelConfig config = ParseModelConfig(configs::ReadJsonFile(path), path);
    double parameters = 0;
    for (const TensorSpec& spec : RequiredTensors(config)) parameters += double(spec.count());
    ++count;
    const auto known = billions.find(entry.path().stem());
    if (known != billions.end()) {
      EXPECT_NEAR(parameters / 1e9, known->second, 0.001) << path;
    }
  }
  EXPECT_EQ(count, 11);
}

TEST(Convert, LoadedWeightsAreTheSameFromEveryForm) {
  // BF16 and FP8 files into every mode: streamed rows give what whole tensors give.
  const TempDir dir;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kF8E4m3}) {
    const std::string m = Init(dir, ("m" + DtypeName(dtype)).c_str(), dtype);
    const ModelConfig config = ReadModelConfig(m);
    for (const char* mode : {"fp32", "bf16", "fp8"}) {
      const Numerics numerics = ParseNumerics(mode, "fp32", "pow2");
      const Weights streamed = Weights::Load(m, config, numerics);
      Weights whole(config, numerics);
      ReadCheckpoint(m, config, [&](const TensorSpec& spec, const TensorData& data) {
        whole.Set(spec.name, data);
      });
      const auto same = [](const PackedLinear& a, const PackedLinear& b) {
        return a.storage.size() == b.storage.size() && a.scale == b.scale &&
               std::equal(a.storage.data(), a.storage.data() + a.storage.size(), b.storage.data());
      };
      for (int i = 0; i < config.num_layers + config.mtp_layers; ++i) {
        const LayerWeights &a = streamed.layer(i), &b = whole.layer(i);
        EXPECT_TRUE(same(a.q_a, b.q_a) && same(a.o, b.o) && same(a.kv_a, b.kv_a));
        EXPECT_TRUE(same(a.w_uk[1], b.w_uk[1]) && same(a.w_uv[2], b.w_uv[2]));
        EXPECT_TRUE(same(a.mlp.down, b.mlp.down) && same(a.shared.gate_up, b.shared.gate_up));
        EXPECT_EQ(a.input_norm, b.input_norm);
        EXPECT_TRUE(!a.moe || same(a.experts[7].gate_up, b.experts[7].gate_up));
      }
      EXPECT_TRUE(same(streamed.head(), whole.head()));
      std::vector<float> x(config.hidden_size), y(config.hidden_size);
      streamed.Embed(17, x.data());
      whole.Embed(17, y.data());
      EXPECT_EQ(x, y);
    }
  }
}

}  // namespace
}  // namespace temper::engine
