#include "sft/sft.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
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
  EXPECT_THROW(RunSft(Config("run"), alone_), UserError);
  EXPECT_TRUE(fs::is_empty(Path("run")));
}

TEST_F(SftTest, NamesTheLineOfARowThatIsTooLong) {
  Write("rows.jsonl", R"({"prompt": "1+1=", "completion": "2"})"
                      "\n"
                      R"({"prompt": "1+1=", "completion": ")" +
                          std::string(80, '2') + "\"}\n");
  try {
    RunSft(Config("run"), alone_);
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

TEST_F(SftTest, TokensPastADevicesCapacityAreDroppedButForExemptRows) {
  const std::vector<std::string> sets = {"sft.token_drop_capacity=1", "sft.token_drop_exempt=0"};
  const std::vector<Json> dropped = Run(Config("dropped", sets));
  EXPECT_GT(dropped[0]["moe/dropped"].get<double>(), 0.0);
  EXPECT_LT(dropped[0]["moe/dropped"].get<double>(), 0.5);
  const std::vector<Json> again = Run(Config("again", sets));
  EXPECT_EQ(again.back()["loss"], dropped.back()["loss"]);
  const std::vector<Json> whole = Run(Config("whole"));
  EXPECT_NE(whole[0]["loss"], dropped[0]["loss"]);
  EXPECT_FALSE(whole[0].contains("moe/dropped"));
  // With every row exempt, or room for all, nothing changes.
  for (const char* set : {"sft.token_drop_exempt=1", "sft.token_drop_capacity=100"}) {
    std::vector<std::string> all = sets;
    all.push_back(set);
    const std::vector<Json> same = Run(Config("same", all));
    EXPECT_EQ(same.back()["loss"], whole.back()["loss"]) << set;
    EXPECT_EQ(same[0]["moe/dropped"], 0.0);
    fs::remove_all(Path("same"));
  }
}

TEST_F(SftTest, ATeachersRowsTrainItsDistribution) {
  // A teacher that is sure of the row's own ids is the row itself.
  std::string own, soft;
  std::mt19937 rng(4);
  for (int i = 0; i < 12; ++i) {
    Json prompt = Json::array(), completion = Json::array(), ids = Json::array(),
         sure = Json::array(), two = Json::array(), logps = Json::array();
    for (int j = 0; j < 5; ++j) prompt.push_back(rng() % 200);
    for (int j = 0; j < 6; ++j) {
      const int id = int(rng() % 100);
      completion.push_back(id);
      ids.push_back({id});
      sure.push_back({0.0});
      two.push_back({id, id + 100});
      logps.push_back({std::log(0.3), std::log(0.6)});
    }
    Json row = {{"prompt_ids", prompt}, {"completion_ids", completion}};
    own += row.dump() + "\n";
    row["teacher_ids"] = ids;
    row["teacher_logprobs"] = sure;
    soft += row.dump() + "\n";
    row["teacher_ids"] = two;
    row["teacher_logprobs"] = logps;
    Write("two.jsonl", (i == 0 ? "" : Bytes(Path("two.jsonl"))) + row.dump() + "\n");
  }
  Write("own.jsonl", own);
  Write("sure.jsonl", soft);
  const auto run = [&](const std::string& rows, std::vector<std::string> sets = {}) {
    sets.insert(sets.end(), {"data.train=" + Path(rows), "sft.packing=false"});
    fs::remove_all(Path("run"));
    return Run(Config("run", sets));
  };
  const std::vector<Json> plain = run("own.jsonl"), sure = run("sure.jsonl");
  for (const char* key : {"loss", "grad_norm"})
    EXPECT_NEAR(sure[0][key].get<double>(), plain[0][key].get<double>(), 1e-5) << key;
  EXPECT_NEAR(sure[0]["distillation_kl"].get<double>(), sure[0]["loss"].get<double>(), 1e-5);
  // Of two ids: the loss goes down to the teacher's entropy, not below.
  const std::vector<Json> two =
      run("two.jsonl", {"sft.max_steps=80", "sft.learning_rate=1e-2", "sft.weight_decay=0",
                        "sft.mtp_loss_scale=0", "sft.tokens_per_step=200"});
  const double entropy = -(std::log(1 / 3.0) / 3 + 2 * std::log(2 / 3.0) / 3);
  EXPECT_GT(two.back()["loss"].get<double>(), entropy - 1e-3);
  EXPECT_LT(two.back()["distillation_kl"].get<double>(), 0.3);
  EXPECT_NEAR(two.back()["loss"].get<double>() - two.back()["distillation_kl"].get<double>(),
              entropy, 1e-4);
  // Nothing of the teacher is left at alpha 0.
  EXPECT_NEAR(run("two.jsonl", {"sft.distillation_alpha=0"})[0]["loss"].get<double>(),
              plain[0]["loss"].get<double>(), 1e-5);
}

TEST_F(SftTest, ABrokenTeachersRowIsNamed) {
  const Json good = {{"prompt_ids", {1, 2}},
                     {"completion_ids", {3, 4}},
                     {"teacher_ids", {{3}, {4, 5}}},
                     {"teacher_logprobs", {{-0.1}, {-0.1, -2}}}};
  const std::vector<std::pair<Json, std::string>> cases = {
      {{{"teacher_logprobs", nullptr}}, "must be 2 lists"},
      {{{"teacher_ids", {{3}}}}, "must be 2 lists"},
      {{{"teacher_ids", {{3}, {4}}}}, "lists of one length"},
      {{{"teacher_ids", {{3}, {4, 4}}}}, "twice"},
      {{{"teacher_ids", {{3}, {4, 100000}}}}, "teacher_ids[1]"},
      {{{"teacher_logprobs", {{-0.1}, {-0.1, 2}}}}, "no log-probability"},
      {{{"completion_ids", "x"}}, "completion_ids"},
      {{{"completion_ids", {3, -1}}}, "completion_ids"}};
  for (const auto& [change, message] : cases) {
    Json row = good;
    row.update(change);
    Write("broken.jsonl", good.dump() + "\n" + row.dump() + "\n");
    try {
      RunSft(Config("run", {"data.train=" + Path("broken.jsonl")}), alone_);
      ADD_FAILURE() << message;
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find("broken.jsonl:2"), std::string::npos)
          << error.what();
      EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
    }
  }
}

TEST_F(SftTest, AdaptersLowerTheLossAndResumeBitForBit) {
  const std::vector<std::string> sets = {"lora.r=4", "sft.learning_rate=2e-2"};
  const std::vector<Json> lines = Run(Config("whole", sets));
  EXPECT_LT(lines.back()["loss"].get<double>(), lines[0]["loss"].get<double>());
  std::vector<std::string> half = sets;
  half.push_back("sft.max_steps=3");
  Run(Config("half", half));
  std::vector<std::string> rest = sets;
  rest.insert(rest.end(), {"resume=true", "resume_allow=[\"sft.max_steps\"]"});
  Run(Config("half", rest));
  for (const char* file : {"model.safetensors", "optimizer.safetensors",
                           "adapter/adapter_model.safetensors", "adapter/adapter_config.json"}) {
    EXPECT_EQ(Bytes(Path("half/checkpoints/latest/") + file),
              Bytes(Path("whole/checkpoints/latest/") + file))
        << file;
  }
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
      RunSft(Config("run", sets), alone_);
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

TEST(CursorTest, RefusesAPlaceThatTheDataNoLongerHas) {
  EXPECT_THROW(Cursor(7, true, 1, 0, 8), UserError);
}

TEST(CursorTest, TakesARowThatAloneIsOverTheTokens) {
  const std::vector<std::int64_t> lengths = {100, 2};
  Cursor cursor(2, /*shuffle=*/false, 0, 0, 0);
  EXPECT_EQ(cursor.Take(lengths, 10), std::vector<std::int64_t>{0});
  EXPECT_EQ(cursor.Take(lengths, 10), std::vector<std::int64_t>{1});
}

}  // namespace
}  // namespace temper::sft
