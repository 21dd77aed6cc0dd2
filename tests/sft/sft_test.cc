#include "sft/sft.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "configs/error.h"
#include "engine/checkpoint.h"
#include "engine/weights.h"
#include "sft/dataset.h"
#include "tests/sft/fixture.h"

namespace temper::sft {
namespace {

TEST_F(SftTest, LowersTheLossAndLeavesAModelFolder) {
  const std::vector<Json> lines = Run(Config("run", {"sft.max_steps=30"}));
  ASSERT_EQ(lines.size(), 30u);
  EXPECT_LT(lines.back()["loss"].get<double>(), 0.6 * lines.front()["loss"].get<double>());
  EXPECT_LT(lines.back()["mtp_loss"].get<double>(), lines.front()["mtp_loss"].get<double>());
  EXPECT_TRUE(fs::exists(Path("run/checkpoints/latest/tokenizer.json")));
  EXPECT_NO_THROW(engine::Weights::Load(Path("run/checkpoints/latest"),
                                        engine::ReadModelConfig(Path("run/checkpoints/latest"))));
}

TEST_F(SftTest, ResumesBitForBitFromACheckpointAndSkipsATornOneInEveryMode) {
  for (const char* dtype : {"fp32", "bf16", "fp8", "fp8-w8a8"}) {
    SCOPED_TRACE(dtype);
    const std::string a = std::string("a-") + dtype, b = std::string("b-") + dtype;
    const std::string mode = std::string("dtype=") + dtype;
    const std::vector<Json> whole = Run(Config(a, {"threads=2", mode}));
    Run(Config(b, {"threads=2", mode}));
    // As kill -9 may leave it: the last checkpoint torn.
    fs::resize_file(Path(b + "/checkpoints/step-000006/optimizer.safetensors"), 1000);
    const std::vector<Json> rest = Run(Config(b, {"threads=2", mode, "resume=true"}));
    ASSERT_EQ(rest.size(), 3u);
    for (int i = 0; i < 3; ++i) {
      for (const char* key : {"step", "loss", "grad_norm", "mtp_loss", "num_tokens"})
        EXPECT_EQ(rest[i][key], whole[i + 3][key]) << key;
    }
    for (const char* file : {"optimizer.safetensors", "model.safetensors"}) {
      EXPECT_EQ(Bytes(Path(a + "/checkpoints/step-000006/") + file),
                Bytes(Path(b + "/checkpoints/step-000006/") + file))
          << file;
    }
  }
}

TEST_F(SftTest, RoundedModesLearnAsFp32Does) {
  const double exact = Run(Config("fp32", {"sft.max_steps=30"})).back()["loss"].get<double>();
  for (const char* dtype : {"bf16", "fp8", "fp8-w8a8"}) {
    const std::vector<Json> lines =
        Run(Config(dtype, {"sft.max_steps=30", std::string("dtype=") + dtype}));
    EXPECT_NE(lines.back()["loss"], exact) << dtype;
    EXPECT_NEAR(lines.back()["loss"].get<double>(), exact, 0.1 * exact) << dtype;
  }
}

TEST_F(SftTest, TheNumberOfMicroBatchesChangesNoLoss) {
  const std::vector<Json> one = Run(Config("one"));
  const std::vector<Json> four = Run(Config("four", {"sft.gradient_accumulation_steps=4"}));
  const std::vector<Json> rows = Run(Config("rows", {"sft.packing=false"}));
  for (int i = 0; i < 6; ++i) {
    for (const auto& other : {four, rows}) {
      EXPECT_NEAR(one[i]["loss"].get<double>(), other[i]["loss"].get<double>(), 1e-5);
      EXPECT_NEAR(one[i]["grad_norm"].get<double>(), other[i]["grad_norm"].get<double>(), 1e-4);
    }
  }
}

TEST_F(SftTest, LibTorchsForwardTrainsTheSameUpToRounding) {
  const std::vector<Json> kernels = Run(Config("kernels"));
  const std::vector<Json> plain = Run(Config("plain", {"learner.forward=libtorch"}));
  for (int i = 0; i < 6; ++i) {
    EXPECT_NEAR(kernels[i]["loss"].get<double>(), plain[i]["loss"].get<double>(), 1e-3);
  }
}

TEST_F(SftTest, RefusesAFolderThatIsThere) {
  fs::create_directories(Path("run"));
  EXPECT_THROW(RunSft(Config("run")), UserError);
  EXPECT_TRUE(fs::is_empty(Path("run")));
}

TEST_F(SftTest, NamesTheLineOfARowThatIsTooLong) {
  Write("rows.jsonl", R"({"prompt": "1+1=", "completion": "2"})"
                      "\n"
                      R"({"prompt": "1+1=", "completion": ")" +
                          std::string(80, '2') + "\"}\n");
  try {
    RunSft(Config("run"));
    FAIL() << "a row of 80 characters was taken";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("rows.jsonl:2"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(fs::exists(Path("run")));
}

TEST_F(SftTest, EvaluatesOnHeldOutRows) {
  const std::vector<Json> lines = Run(Config(
      "run", {"data.eval=" + Path("rows.jsonl"), "sft.eval_steps=3", "sft.logging_steps=2"}));
  std::set<std::int64_t> evaluated;
  for (const Json& line : lines) {
    if (line.contains("eval_loss")) evaluated.insert(line["step"].get<std::int64_t>());
  }
  EXPECT_EQ(evaluated, (std::set<std::int64_t>{3, 6}));
}

TEST_F(SftTest, BalanceLossesEvenTheLoadsAndAnySplitGivesTheSameStep) {
  const std::vector<std::string> sets = {
      "sft.expert_balance_loss=0.3", "sft.device_balance_loss=0.2",
      "sft.communication_balance_loss=0.1", "sft.router_bias_update_speed=0"};
  const std::vector<Json> packed = Run(Config("packed", sets));
  std::vector<std::string> split = sets;
  split.push_back("sft.packing=false");
  const std::vector<Json> alone = Run(Config("alone", split));
  for (const char* key : {"balance_loss", "grad_norm"}) {
    const double a = packed[0][key].get<double>(), b = alone[0][key].get<double>();
    EXPECT_NEAR(a, b, 1e-6 * b) << key;
  }
  std::vector<std::string> longer = sets;
  longer.insert(longer.end(), {"sft.max_steps=60", "sft.logging_steps=1"});
  const std::vector<Json> balanced = Run(Config("long", longer));
  EXPECT_LT(balanced.back()["balance_loss"].get<double>(),
            balanced.front()["balance_loss"].get<double>());
  EXPECT_THROW(Config("plain", {"sft.expert_balance_loss=1", "learner.forward=libtorch"}),
               UserError);
}

TEST_F(SftTest, APackHasTheLossOfItsRowsAlone) {
  const std::vector<Json> packed = Run(Config("packed", {"sft.max_steps=2"}));
  const std::vector<Json> alone = Run(Config("alone", {"sft.max_steps=2", "sft.packing=false"}));
  for (const char* key : {"loss", "mtp_loss", "grad_norm"}) {
    const double a = packed[0][key].get<double>(), b = alone[0][key].get<double>();
    EXPECT_NEAR(a, b, 1e-6 * b) << key;
  }
  EXPECT_EQ(packed[0]["num_tokens"], alone[0]["num_tokens"]);
}

/// Two exchanges a row; what is trained is what the assistant said, its end included.
class AssistantTest : public SftTest {
 protected:
  static constexpr const char* kRow =
      R"({"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"},
                       {"role": "user", "content": "3"}, {"role": "assistant", "content": "4!"}]})";

  void UseTemplate(const std::string& said) {
    Write("model/chat_template.jinja",
          "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}U:{{ m.content }}"
          "{% else %}A:" +
              said + "{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}");
    std::string row = kRow;
    std::erase(row, '\n');
    Write("rows.jsonl", row + "\n");
  }
  /// The text of the trained tokens.
  std::string Trained(const std::vector<std::string>& sets) const {
    const configs::Config config = Config("run", sets);
    const engine::Tokenizer tokenizer(config.model);
    const Example row = LoadExamples(config.data.train, config, tokenizer,
                                     engine::ReadModelConfig(config.model))[0];
    std::vector<std::int32_t> ids;
    for (std::int32_t t : TrainedTokens(row, config.sft)) ids.push_back(row.ids[t]);
    return tokenizer.Decode(ids, /*skip_special=*/false);
  }
};

TEST_F(AssistantTest, OnlyTheAssistantsTurnsAreTrainedWithAnyTemplate) {
  const std::string eos = [&] {
    const engine::Tokenizer tokenizer(Path("model"));
    return tokenizer.Decode({tokenizer.eos_id()}, false);
  }();
  UseTemplate("{{ m.content }}{{ eos_token }}");
  EXPECT_EQ(Trained({"sft.assistant_only_loss=true"}), "2" + eos + "4!" + eos);
  EXPECT_EQ(Trained({}), "U:1+1A:2" + eos + "U:3A:4!" + eos);
  // A template that says which part is generated is taken at its word.
  UseTemplate("{% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}");
  EXPECT_EQ(Trained({"sft.assistant_only_loss=true"}), "24!");
}

TEST_F(AssistantTest, TrainsOnIt) {
  UseTemplate("{{ m.content }}{{ eos_token }}");
  const std::vector<Json> lines =
      Run(Config("run", {"sft.assistant_only_loss=true", "sft.max_steps=2"}));
  EXPECT_EQ(lines[0]["trained_tokens"].get<int>() % 5, 0);
  EXPECT_LT(lines[1]["loss"].get<double>(), lines[0]["loss"].get<double>());
}

TEST_F(AssistantTest, ARowWithNothingToTrainIsNamed) {
  const auto error_of = [&](const std::vector<std::string>& sets) -> std::string {
    try {
      RunSft(Config("run", sets));
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  UseTemplate("{{ m.content }}{{ eos_token }}");
  Write("rows.jsonl", std::string(R"({"messages": [{"role": "user", "content": "1"}]})") + "\n");
  EXPECT_NE(error_of({"sft.assistant_only_loss=true"}).find("rows.jsonl:1: no token"),
            std::string::npos);
  Write("rows.jsonl", R"({"prompt": "1", "completion": "2"})");
  EXPECT_NE(error_of({"sft.assistant_only_loss=true"}).find("rows.jsonl:1: a row of text"),
            std::string::npos);
}

TEST(BestFitTest, FillsTheFullestPackThatHasRoomLongestFirst) {
  using Packs = std::vector<std::vector<std::int64_t>>;
  EXPECT_EQ(BestFit({3, 7, 5, 2, 4}, 10), (Packs{{0, 1}, {2, 4}, {3}}));
  EXPECT_EQ(BestFit({3, 7, 5, 2, 4}, 100), (Packs{{0, 1, 2, 3, 4}}));
  EXPECT_EQ(BestFit({30, 1}, 10), (Packs{{0}, {1}}));  // one that alone is too long
  EXPECT_EQ(BestFit({1, 1}, 0), (Packs{{0}, {1}}));    // no packing
  EXPECT_TRUE(BestFit({}, 10).empty());
}

TEST(BestFitTest, LosesNoRowAndNeedsNearlyNoMorePacksThanTokensAsk) {
  std::vector<std::int64_t> lengths;
  std::int64_t total = 0;
  for (int i = 0; i < 500; ++i) total += lengths.emplace_back(1 + i * 7919 % 97);
  const auto packs = BestFit(lengths, 256);
  std::set<std::int64_t> rows;
  for (const auto& pack : packs) {
    std::int64_t tokens = 0;
    for (std::int64_t row : pack) {
      EXPECT_TRUE(rows.insert(row).second);
      tokens += lengths[row];
    }
    EXPECT_LE(tokens, 256);
  }
  EXPECT_EQ(rows.size(), lengths.size());
  EXPECT_LE(std::int64_t(packs.size()), (total + 255) / 256 + 1);
}

TEST(CursorTest, TakesEveryRowOnceAnEpochAndNoStepOverItsTokens) {
  std::vector<std::int64_t> lengths;
  for (int i = 0; i < 10; ++i) lengths.push_back(3 + i % 3);
  Cursor cursor(10, /*shuffle=*/true, 5, 0, 0);
  std::vector<std::int64_t> order;
  while (order.size() < 10) {
    std::int64_t tokens = 0;
    const std::vector<std::int64_t> taken = cursor.Take(lengths, 9);
    for (std::int64_t row : taken) tokens += lengths[row];
    EXPECT_LE(tokens, 9);
    order.insert(order.end(), taken.begin(), taken.end());
  }
  EXPECT_EQ(std::set<std::int64_t>(order.begin(), order.begin() + 10).size(), 10u);
}

TEST(CursorTest, GoesOnFromAnEpochAndAPosition) {
  const std::vector<std::int64_t> lengths(7, 2);
  Cursor whole(7, true, 1, 0, 0);
  for (int i = 0; i < 3; ++i) whole.Take(lengths, 8);
  Cursor resumed(7, true, 1, whole.epoch(), whole.position());
  EXPECT_EQ(whole.Take(lengths, 8), resumed.Take(lengths, 8));
}

TEST(CursorTest, TakesARowThatAloneIsOverTheTokens) {
  const std::vector<std::int64_t> lengths = {100, 2};
  Cursor cursor(2, /*shuffle=*/false, 0, 0, 0);
  EXPECT_EQ(cursor.Take(lengths, 10), std::vector<std::int64_t>{0});
  EXPECT_EQ(cursor.Take(lengths, 10), std::vector<std::int64_t>{1});
}

}  // namespace
}  // namespace temper::sft
