// What the torch-free commands print, and that it is the same again.
#include <set>

#include "cli/evaluate.h"
#include "cli/tasks.h"
#include "tests/cli/programs.h"

namespace temper::cli {
namespace {

using CommandsTest = ProgramTest;

TEST_F(CommandsTest, GenerateGivesTheSameSamplesAgainAndInPromptOrder) {
  const std::string model = Model();
  const std::string prompts = Write(
      "p.jsonl", "{\"prompt\": \"1+1;\"}\n\n{\"ids\": [0, 52, 53]}\n{\"prompt\": \"9+9;\"}\n");
  const std::vector<std::string> args = {"generate", "--model", model, "--prompts",
                                         prompts,    "--n",     "3",   "--max-new-tokens",
                                         "6",        "--seed",  "7"};
  const Ran ran = Temper(args);
  ASSERT_EQ(ran.code, 0) << ran.err;
  const std::vector<Json> lines = ran.Lines();
  ASSERT_EQ(lines.size(), 9u);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const Json& line = lines[i];
    EXPECT_EQ(line["prompt_index"], i / 3);
    EXPECT_EQ(line["sample"], i % 3);
    EXPECT_EQ(line["seed"], 7);
    const std::size_t tokens = line["ids"].size();
    for (const char* key : {"logp", "logp_processed", "log_kept_mass", "versions"}) {
      EXPECT_EQ(line[key].size(), tokens) << key;
    }
    EXPECT_TRUE(line["finish_reason"] == "length" || line["finish_reason"] == "stop");
  }
  EXPECT_EQ(lines[3]["prompt_ids"], Json({0, 52, 53}));
  EXPECT_NE(lines[0]["ids"], lines[1]["ids"]);
  EXPECT_EQ(Temper(args).out, ran.out);
  // A prompt alone gives the same bits as among others.
  const Ran alone = Temper(
      {"generate", "--model", model, "--prompt", "1+1;", "--max-new-tokens", "6", "--seed", "7"});
  EXPECT_EQ(alone.Lines().at(0), lines[0]);
}

TEST_F(CommandsTest, ChatsAreRenderedByTheProbeAndGeneratedFrom) {
  const std::string model = Model();
  const std::string row = R"({"prompt": [{"role": "user", "content": "1+1"}]})";
  const Ran without = Temper({"generate", "--model", model, "--prompts", Write("p.jsonl", row)});
  EXPECT_EQ(without.code, 2);
  EXPECT_NE(without.err.find("p.jsonl:1: " + model + ": messages need a chat template"),
            std::string::npos)
      << without.err;
  std::ofstream(model + "/chat_template.jinja")
      << "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
         "{% if add_generation_prompt %}<a>{% if thinking %}?{% endif %}{% endif %}";
  const Ran probe = Temper(
      {"probe", "template", "--model", model},
      "[{\"role\": \"user\", \"content\": \"1+1\"}]\n"
      "{\"messages\": [{\"role\": \"user\", \"content\": \"1+1\"}], \"add_generation_prompt\": "
      "true}\n[]\n"
      "{\"messages\": [{\"role\": \"user\", \"content\": \"1+1\"}], \"add_generation_prompt\": "
      "true, \"thinking\": true}\n");
  EXPECT_EQ(probe.code, 2);
  const std::vector<Json> lines = probe.Lines();
  ASSERT_EQ(lines.size(), 4u);
  const std::string rendered = lines[1]["text"].get<std::string>();
  EXPECT_EQ(rendered.substr(rendered.size() - 12), "<user>1+1<a>");
  EXPECT_EQ(lines[0]["text"].get<std::string>() + "<a>", rendered);
  EXPECT_EQ(lines[3]["text"].get<std::string>(), rendered + "?");
  EXPECT_EQ(lines[2]["error"], "stdin:3: messages: [] must be a list of messages, not empty");
  const Ran ran = Temper(
      {"generate", "--model", model, "--prompts", Write("p.jsonl", row), "--max-new-tokens", "2"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.Lines().at(0)["prompt_ids"], lines[1]["ids"]);
}

TEST_F(CommandsTest, GenerateRunsInEveryModeAndNamesAWrongOne) {
  const std::string model = Model();
  std::set<std::string> outputs;
  for (const char* dtype : {"fp32", "bf16", "fp8", "fp8-w8a8"}) {
    const std::vector<std::string> args = {"generate", "--model",       model, "--prompt",
                                           "1+1;",     "--dtype",       dtype, "--max-new-tokens",
                                           "6",        "--cache-dtype", "bf16"};
    const Ran ran = Temper(args);
    ASSERT_EQ(ran.code, 0) << ran.err;
    outputs.insert(ran.Lines().at(0)["logp"].dump());
  }
  EXPECT_EQ(outputs.size(), 4u);
  const Ran wrong = Temper({"generate", "--model", model, "--prompt", "1", "--dtype", "int4"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_NE(wrong.err.find("dtype: \"int4\" is none of fp32, bf16, fp8, fp8-w8a8"),
            std::string::npos)
      << wrong.err;
}

TEST_F(CommandsTest, BenchMeasuresEachBatchAndReportsTheCache) {
  const std::string model = Model();
  const Ran ran = Temper({"bench", "--model", model, "--batch", "1,3", "--prompt", "20", "--new",
                          "5", "--dtype", "fp8", "--runs", "3", "--threads", "2"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const std::vector<Json> lines = ran.Lines();
  ASSERT_EQ(lines.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    const Json& line = lines[i];
    EXPECT_EQ(line["batch"], i == 0 ? 1 : 3);
    EXPECT_EQ(line["prompt"], 20);
    EXPECT_EQ(line["new"], 5);
    EXPECT_EQ(line["dtype"], "fp8");
    EXPECT_EQ(line["threads"], 2);
    EXPECT_EQ(line["runs"], 3);
    for (const char* key : {"prefill_tok_s", "decode_tok_s", "ttft_ms", "read_gb_s"}) {
      EXPECT_GT(line[key]["min"], 0) << key;
      EXPECT_LE(line[key]["min"], line[key]["median"]) << key;
      EXPECT_LE(line[key]["median"], line[key]["max"]) << key;
    }
    for (const char* key : {"bytes_per_token", "limit_share", "rss_bytes"}) {
      EXPECT_GT(line[key], 0) << key;
    }
    EXPECT_TRUE(line["isa"].is_string());
  }
  EXPECT_LT(lines[1]["bytes_per_token"], lines[0]["bytes_per_token"]);
  const Ran report = Temper({"bench", "--model", model, "--cache-report"});
  ASSERT_EQ(report.code, 0) << report.err;
  int measured = 0;
  for (const Json& line : report.Lines()) {
    if (line["layout"] != "mla") continue;
    ++measured;
    EXPECT_EQ(line["measured"], line["bytes_per_token_layer"]);
  }
  EXPECT_EQ(measured, 2);
  EXPECT_EQ(report.Lines().back()["reduction"], 0.933);
  EXPECT_EQ(Temper({"bench", "--model", model, "--batch", "1,x"}).code, 2);
  EXPECT_EQ(Temper({"bench", "--model", model, "--prompt", "9999999"}).code, 2);
}

TEST_F(CommandsTest, AStopStringEndsASampleAndIsLeftOut) {
  const std::string model = Model();
  const std::vector<std::string> args = {
      "generate", "--model", model, "--prompt", "1+1;", "--max-new-tokens", "40", "--seed", "3"};
  const Json whole = Temper(args).Lines().at(0);
  const std::string text = whole["text"].get<std::string>();
  std::size_t at = text.size() / 2;  // an ASCII letter or digit of the text's second half
  while (at < text.size() && !std::isalnum(static_cast<unsigned char>(text[at]))) ++at;
  ASSERT_LT(at, text.size()) << text;
  const std::string stop = text.substr(at, 1);
  std::vector<std::string> stopped_args = args;
  stopped_args.insert(stopped_args.end(), {"--stop", stop});
  const Json stopped = Temper(stopped_args).Lines().at(0);
  EXPECT_EQ(stopped["finish_reason"], "stop");
  EXPECT_EQ(stopped["text"], text.substr(0, text.find(stop)));
  EXPECT_LT(stopped["ids"].size(), whole["ids"].size());
}

TEST_F(CommandsTest, TemperatureZeroIsGreedyWhateverTheSeed) {
  const std::string model = Model();
  const auto ids = [&](const std::string& seed) {
    return Temper({"generate", "--model", model, "--prompt", "1+1;", "--max-new-tokens", "5",
                   "--temperature", "0", "--seed", seed})
        .Lines()
        .at(0)["ids"];
  };
  EXPECT_EQ(ids("1"), ids("2"));
}

TEST_F(CommandsTest, EvalScoresEverySampleAndCountsWhatFailed) {
  const std::string model = Model();
  const std::string data =
      Write("d.jsonl", "{\"prompt\": \"1+1;\", \"answer\": 2}\n{\"prompt\": \"2+2;\"}\n");
  const std::string reward = Write("r.lua", R"(
function score(sample)
  if not sample.answer then return nil end
  return { score = 1.0, asked = #sample.prompt }
end)");
  const Ran ran = Temper({"eval", "--model", model, "--data", data, "--reward", reward, "--n", "2",
                          "--max-new-tokens", "4", "--samples", Path("s.jsonl")});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json summary = ran.Lines().back();
  EXPECT_EQ(summary["summary"], true);
  EXPECT_EQ(summary["prompts"], 2);
  EXPECT_EQ(summary["mean@2"], 1.0);
  EXPECT_EQ(summary["pass@1"], 1.0);
  EXPECT_EQ(summary["pass@2"], 1.0);
  EXPECT_EQ(summary["statuses"], (Json{{"ok", 2}, {"not_applicable", 2}}));
  EXPECT_EQ(summary["parts"], (Json{{"asked", 4.0}}));
  std::istringstream samples(Read(Path("s.jsonl")));
  std::string line;
  std::getline(samples, line);
  const Json first = configs::ParseJson(line, "samples");
  EXPECT_EQ(first["score"], 1.0);
  EXPECT_EQ(first["status"], "ok");
  EXPECT_EQ(first["parts"]["asked"], 4.0);
}

TEST_F(CommandsTest, EvalTakesTheHeldOutRowsOfATask) {
  const std::string task = std::string(TEMPER_SOURCE_DIR) + "/reward/library/arithmetic.lua";
  const Ran ran =
      Temper({"eval", "--model", Model(), "--task", task, "--task-seed", "4", "--task-rows", "5",
              "--max-new-tokens", "2", "--samples", Path("s.jsonl")});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.Lines().back()["prompts"], 5);
  EXPECT_EQ(ran.Lines().back()["statuses"], (Json{{"ok", 5}}));
  const Ran both = Temper({"eval", "--model", Path("model"), "--task", task, "--data", "d.jsonl"});
  EXPECT_EQ(both.code, 2);
  EXPECT_NE(both.err.find("--data, --task: one of them must be given"), std::string::npos);
}

TEST_F(CommandsTest, AFailingRewardIsAStatusAndNoScore) {
  const std::string model = Model();
  const std::string data = Write("d.jsonl", "{\"prompt\": \"1+1;\", \"answer\": 2}\n");
  const std::string reward = Write("r.lua", "function score(s) return s.nothing.here end");
  const Json summary = Temper({"eval", "--model", model, "--data", data, "--reward", reward,
                               "--max-new-tokens", "4"})
                           .Lines()
                           .back();
  EXPECT_EQ(summary["mean@1"], nullptr);
  EXPECT_EQ(summary["statuses"], (Json{{"script_error", 1}}));
  const Ran broken = Temper({"eval", "--model", model, "--data", data, "--reward",
                             Write("b.lua", "function score(s return 1 end")});
  EXPECT_EQ(broken.code, 2);
  EXPECT_NE(broken.err.find("b.lua:1"), std::string::npos) << broken.err;
}

TEST_F(CommandsTest, ProbesGiveTheContractsNumbers) {
  EXPECT_EQ(Temper({"probe", "sample", "--positions", "1"}).out,
            "0.399046421\n");  // 0x6627e8 / 2^24
  const std::string tokenizer = std::string(TEMPER_SOURCE_DIR) + "/configs/tokenizers/bytes";
  const Ran tokens = Temper({"probe", "tokens", "--model", tokenizer}, "\"a b\"\nnot json\n\"\"\n");
  EXPECT_EQ(tokens.code, 2);
  const std::vector<Json> lines = tokens.Lines();
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], (Json{{"ids", {100, 35, 101}}, {"text", "a b"}}));
  EXPECT_TRUE(lines[1].contains("error"));
  EXPECT_EQ(lines[2], (Json{{"ids", Json::array()}, {"text", ""}}));
}

TEST_F(CommandsTest, TheActorsLogprobsDoNotDependOnBatchChunkOrThreads) {
  const std::string model = Model();
  const std::string ids = Write("ids.json", "[[0, 5, 9, 100, 7], [3], [0, 1, 2, 3, 4, 5, 6, 7]]");
  const auto bytes = [&](const std::vector<std::string>& more) {
    std::vector<std::string> args = {"probe", "logprobs", "--side", "actor", "--model",
                                     model,   "--ids",    ids,      "--out", Path("o.safetensors")};
    args.insert(args.end(), more.begin(), more.end());
    const Ran ran = Temper(args);
    EXPECT_EQ(ran.code, 0) << ran.err;
    return Read(Path("o.safetensors"));
  };
  const std::string one = bytes({"--threads", "1"});
  EXPECT_GT(one.size(), 100u);
  EXPECT_EQ(bytes({"--batch", "3", "--chunk", "2", "--prompt-lens", "[4, 1, 8]"}), one);
  EXPECT_EQ(bytes({"--prompt-lens", "1", "--threads", "2"}), one);
}

TEST_F(CommandsTest, DoctorSaysWhatItFound) {
  const Ran ran = Temper({"doctor", "--json"});
  const Json found = ran.Lines().at(0);
  EXPECT_EQ(ran.code, found["able"].get<bool>() ? 0 : 3);
  const auto beside = std::filesystem::path(TEMPER_PROGRAM).parent_path() / "temper-learner";
  EXPECT_EQ(found["able"], std::filesystem::exists(beside));
  EXPECT_GE(found["findings"].size(), 6u);
}

TEST(EvaluateTest, PassAtKIsTheUnbiasedEstimator) {
  EXPECT_DOUBLE_EQ(PassAtK(4, 0, 2), 0);
  EXPECT_DOUBLE_EQ(PassAtK(4, 1, 1), 0.25);
  EXPECT_DOUBLE_EQ(PassAtK(4, 2, 2), 1 - 1.0 / 6);  // 1 - C(2,2) / C(4,2)
  EXPECT_DOUBLE_EQ(PassAtK(4, 3, 2), 1);
  EXPECT_DOUBLE_EQ(PassAtK(1, 1, 1), 1);
}

class TasksTest : public ProgramTest {
 protected:
  std::vector<Json> Rows(const std::string& path) const { return Ran{0, Read(path), ""}.Lines(); }
};

TEST_F(TasksTest, HeldOutPromptsStandInNoTrainingFile) {
  const TaskFiles files = WriteTask(FindTask("sums"), 5, {2000, 1000, 500}, dir_);
  std::set<std::string> heldout;
  for (const Json& row : Rows(files.heldout)) heldout.insert(row["prompt"].get<std::string>());
  EXPECT_EQ(heldout.size(), 500u);
  for (const std::string& path : {files.sft, files.grpo}) {
    for (const Json& row : Rows(path))
      EXPECT_EQ(heldout.count(row["prompt"].get<std::string>()), 0u);
  }
}

TEST_F(TasksTest, TheTeacherErrsAndTheAnswersDoNot) {
  const TaskFiles files = WriteTask(FindTask("sums"), 5, {2000, 1000, 10}, dir_);
  const auto sum = [](const std::string& prompt) {
    int total = 0;
    std::istringstream in(prompt);
    for (std::string part; std::getline(in, part, '+');) total += std::stoi(part);
    return std::to_string(total);
  };
  for (const Json& row : Rows(files.grpo)) EXPECT_EQ(row["answer"], sum(row["prompt"]));
  int right = 0;
  const std::vector<Json> taught = Rows(files.sft);
  for (const Json& row : taught) {
    const std::string text = row["completion"];
    const std::string last = text.substr(text.find('<') + 1, text.size() - text.find('<') - 2);
    right += last == sum(row["prompt"]);
  }
  const double share = double(right) / double(taught.size());
  EXPECT_GT(share, 0.5);
  EXPECT_LT(share, 0.75);
}

TEST_F(TasksTest, RowsAreAFunctionOfTheSeed) {
  std::filesystem::create_directory(Path("a"));
  std::filesystem::create_directory(Path("b"));
  std::filesystem::create_directory(Path("c"));
  const TaskSizes sizes{50, 50, 20};
  const TaskFiles a = WriteTask(FindTask("reverse-text"), 1, sizes, Path("a"));
  const TaskFiles b = WriteTask(FindTask("reverse-text"), 1, sizes, Path("b"));
  const TaskFiles c = WriteTask(FindTask("reverse-text"), 2, sizes, Path("c"));
  EXPECT_EQ(Read(a.sft), Read(b.sft));
  EXPECT_NE(Read(a.sft), Read(c.sft));
}

}  // namespace
}  // namespace temper::cli
