#include "configs/config.h"

#include <gtest/gtest.h>

#include "configs/error.h"
#include "configs/fields.h"

namespace temper::configs {
namespace {

const char kSmall[] = R"({
  "name": "arith", "output_dir": "runs/arith", "model": "../models/tiny",
  "data": {"train": "rows.jsonl"},
  "grpo": {"epsilon_high": 0.28},
  "rewards": [{"script": "sum.lua"}]
})";
const char kPath[] = "/somewhere/configs/a.json";

Config Small(const std::vector<std::string>& sets = {}, Job job = Job::kGrpo) {
  return ParseConfig(kSmall, kPath, sets, job);
}

std::string ErrorOf(const std::string& text, const std::vector<std::string>& sets = {},
                    Job job = Job::kGrpo) {
  try {
    ParseConfig(text, kPath, sets, job);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

std::string ErrorOfSet(const std::string& set, Job job = Job::kGrpo) {
  return ErrorOf(kSmall, {set}, job);
}

TEST(ConfigTest, TakesDefaultsFromTheStructsAndPathsFromTheFilesFolder) {
  const Config c = Small();
  EXPECT_EQ(c.model, "/somewhere/models/tiny");
  EXPECT_EQ(c.output_dir, "/somewhere/configs/runs/arith");
  EXPECT_EQ(c.data.train, "/somewhere/configs/rows.jsonl");
  EXPECT_EQ(c.data.eval, "");
  EXPECT_EQ(c.wire.bind, "");  // a run's resolved config stands in for another run's
  EXPECT_EQ(c.rewards[0].name, "sum");
  EXPECT_EQ(c.rewards[0].weight, 1.0);
  EXPECT_EQ(c.grpo.epsilon, 0.2);
  EXPECT_EQ(c.grpo.epsilon_high, 0.28);
  EXPECT_EQ(c.grpo.learning_rate, 1e-6);
  EXPECT_EQ(c.sft.learning_rate, 1e-5);
}

TEST(ConfigTest, ReadsBackWhatItWrites) {
  const Config c =
      Small({"seed=9223372036854775807", "grpo.rollout_correction.clip_max=2", "keep_versions=3",
             "resume_allow=[\"grpo.max_steps\"]", "data.eval=held.jsonl"});
  EXPECT_EQ(c.seed, 9223372036854775807u);
  const Json written = ToJson(c);
  const Config again = ParseConfig(written.dump(), "/elsewhere/run/config.json", {}, Job::kGrpo);
  EXPECT_EQ(ToJson(again), written);
}

TEST(ConfigTest, SetsWinInTheirOrderAndParseJsonBeforeText) {
  const Config c = Small({"grpo.max_steps=5", "grpo.max_steps=6", "name=first light",
                          "grpo.epsilon_high=null", "rewards.0.weight=2.5", "data.shuffle=false"});
  EXPECT_EQ(c.grpo.max_steps, 6);
  EXPECT_EQ(c.name, "first light");
  EXPECT_FALSE(c.grpo.epsilon_high.has_value());
  EXPECT_EQ(c.rewards[0].weight, 2.5);
  EXPECT_FALSE(c.data.shuffle);
}

TEST(ConfigTest, NamesAnUnknownKeyItsPlaceAndTheNearestOne) {
  EXPECT_EQ(ErrorOf(R"({"grpo": {"epsilonn": 1}})"),
            "/somewhere/configs/a.json: grpo.epsilonn: unknown setting; did you mean "
            "\"grpo.epsilon\"?");
  EXPECT_EQ(ErrorOfSet("grpo.learning_rat=1"),
            "--set: grpo.learning_rat: unknown setting; did you mean \"grpo.learning_rate\"?");
  EXPECT_EQ(ErrorOfSet("max_lag=1"),
            "--set: max_lag: unknown setting; did you mean \"grpo.max_lag\"?");
  EXPECT_EQ(ErrorOfSet("zzzzzzzzzz=1"),
            "--set: zzzzzzzzzz: unknown setting; temper grpo --help-keys lists all");
}

TEST(ConfigTest, RefusesWrongTypesAndValuesOutOfRange) {
  const std::pair<const char*, const char*> cases[] = {
      {"grpo.epsilon=1.2", "--set: grpo.epsilon: 1.2 must be in (0, 1)"},
      {"grpo.epsilon=1", "--set: grpo.epsilon: 1 must be in (0, 1)"},
      {"grpo.epsilon=big", "--set: grpo.epsilon: \"big\" must be a number"},
      {"grpo.max_steps=2.5", "--set: grpo.max_steps: 2.5 must be an integer"},
      {"grpo.max_steps=0", "--set: grpo.max_steps: 0 must be in [1, 2147483647]"},
      {"grpo.max_steps=3000000000", "--set: grpo.max_steps: 3000000000 must be in [1, 2147483647]"},
      {"seed=-1", "--set: seed: -1 must be in [0, 9223372036854775807]"},
      {"seed=9223372036854775808",
       "--set: seed: 9223372036854775808 must be in [0, 9223372036854775807]"},
      {"grpo.num_generations=1", "--set: grpo.num_generations: 1 must be in [2, 2147483647]"},
      {"grpo.learning_rate=0", "--set: grpo.learning_rate: 0 must be > 0"},
      {"grpo.loss_type=ppo",
       "--set: grpo.loss_type: \"ppo\" must be one of dapo, grpo, bnpo, dr_grpo, cispo, sapo, "
       "gspo"},
      {"data.shuffle=1", "--set: data.shuffle: 1 must be true or false"},
      {"name=7", "--set: name: 7 must be a string"},
      {"grpo=3", "--set: grpo: 3 must be an object of settings"},
      {"keep_versions=-1",
       "--set: keep_versions: -1 must be \"all\", \"checkpoints\" or a number >= 0"},
      {"grpo.max_steps", "--set grpo.max_steps: must look like key.path=VALUE"},
      {"name.x=1", "--set name.x=1: name holds no further keys"},
      {"rewards.1.weight=1",
       "--set rewards.1.weight=1: rewards is a list of 1; \"1\" must be a number below"},
      {"rewards=[{\"weight\":1}]",
       "--set: rewards: {\"weight\":1} must be given one of \"script\", \"rule\", \"model\" and "
       "\"remote\""},
      {"rewards.0.wait=1",
       "--set: rewards: wait: unknown setting; known are script, rule, model, remote, name, "
       "weight, "
       "options, dtype, timeout_s, retries"},
      {"rewards=[{\"remote\":\"tcp://127.0.0.1:5\",\"retries\":-1}]",
       "--set: rewards: retries: -1 must be an integer from 0 to 100"},
      {"rewards=[{\"remote\":\"tcp://127.0.0.1:5\",\"timeout_s\":0}]",
       "--set: rewards: timeout_s: 0 must be a number from 0.001 to 3600"},
      {"rewards=[{\"model\":\"d\",\"dtype\":\"fp4\"}]",
       "--set: rewards: dtype: \"fp4\" must be one of fp32, bf16, fp8, fp8-w8a8"},
      {"rewards=[{\"rule\":\"math\",\"retries\":1}]",
       "--set: rewards: {\"rule\":\"math\",\"retries\":1} must be without \"retries\": it belongs "
       "to "
       "remotes; scripts have reward.timeout_s"},
      {"rewards=[{\"rule\":\"math\",\"dtype\":\"fp32\"}]",
       "--set: rewards: {\"rule\":\"math\",\"dtype\":\"fp32\"} must be without \"dtype\": it "
       "belongs "
       "to models"},
  };
  for (const auto& [set, message] : cases) EXPECT_EQ(ErrorOfSet(set), message) << set;
}

TEST(ConfigTest, ChecksSettingsAgainstOneAnother) {
  EXPECT_EQ(ErrorOfSet("data.train=null"),
            std::string(kPath) +
                ": data.train: not set; a JSONL file of rows is required, or "
                "data.task, a Lua file that makes them");
  EXPECT_NE(ErrorOfSet("data.task=t.lua").find("from data.train or from data.task; unset one"),
            std::string::npos);
  EXPECT_NE(ErrorOf(kSmall, {"data.task=t.lua"}, Job::kSft).find("sft needs data.train"),
            std::string::npos);
  EXPECT_NE(ErrorOfSet("rewards=[]").find("rewards: none is given"), std::string::npos);
  EXPECT_EQ(ErrorOf(kSmall, {"rewards=[]"}, Job::kSft), "no error");
  EXPECT_NE(ErrorOfSet("grpo.top_p=0.9").find("truncated_sampling"), std::string::npos);
  EXPECT_NE(ErrorOf(kSmall, {"grpo.loss_type=cispo", "grpo.epsilon_high=null"})
                .find("grpo.epsilon_high: null; cispo"),
            std::string::npos);
  EXPECT_NE(
      ErrorOf(kSmall, {"grpo.ignore_eos=true", "grpo.mask_truncated_completions=true"}, Job::kGrpo)
          .find("nothing would be trained"),
      std::string::npos);
  EXPECT_NE(ErrorOfSet("grpo.delta=1.2").find("must be > 1 + epsilon_high = 1.28"),
            std::string::npos);
  EXPECT_NE(ErrorOfSet("grpo.rollout_correction.mode=token_mask").find("clip_max"),
            std::string::npos);
  EXPECT_NE(ErrorOfSet("rewards=[{\"rule\":\"math\"},{\"rule\":\"math\"}]").find("two are named"),
            std::string::npos);
}

TEST(ConfigTest, DevicesAndTheirArithmeticGoTogether) {
  for (const char* set :
       {"device=cuda:0", "device=cuda", "actors.device=cuda:3", "actors.device=cuda:0-7"})
    EXPECT_EQ(ErrorOfSet(set), "no error");
  EXPECT_NE(ErrorOfSet("device=cuda:0-7").find("device: \"cuda:0-7\" must be cpu or cuda:N, e.g."),
            std::string::npos);
  EXPECT_NE(ErrorOfSet("device=cuda:").find("device: \"cuda:\" must be cpu or cuda:N"),
            std::string::npos);
  EXPECT_NE(ErrorOfSet("actors.device=gpu")
                .find("actors.device: \"gpu\" must be cpu, cuda:N or cuda:N-M"),
            std::string::npos);
  const auto error = [](std::vector<std::string> sets) {
    sets.push_back("arithmetic=cuda-1");
    return ErrorOf(kSmall, sets, Job::kGrpo);
  };
  EXPECT_NE(error({"device=cuda"}).find("no dtype fp32"), std::string::npos);
  EXPECT_NE(error({"dtype=fp8"}).find("on a device alone"), std::string::npos);
  EXPECT_NE(error({"dtype=fp8", "device=cuda"}).find("set actors.device"), std::string::npos);
  EXPECT_EQ(error({"dtype=fp8", "device=cuda", "actors.device=cuda:1"}), "no error");
  EXPECT_EQ(error({"dtype=fp8", "device=cuda", "actors.count=0"}), "no error");
  EXPECT_EQ(error({"dtype=fp8", "device=cuda", "numerics=mixed"}), "no error");
}

TEST(ConfigTest, WeightsGoByNcclFromADeviceAlone) {
  EXPECT_EQ(ErrorOfSet("learner.weights_fabric=zmq"), "no error");
  EXPECT_NE(ErrorOfSet("learner.weights_fabric=nccl").find("set device to cuda:N"),
            std::string::npos);
  EXPECT_NE(ErrorOfSet("learner.weights_fabric=mpi").find("learner.weights_fabric"),
            std::string::npos);
  EXPECT_EQ(ErrorOf(kSmall, {"learner.weights_fabric=nccl", "device=cuda:1"}, Job::kGrpo),
            "no error");
  EXPECT_NE(ErrorOf(kSmall, {"learner.weights_fabric=nccl", "device=cuda:1"}, Job::kSft)
                .find("sft has none"),
            std::string::npos);
}

TEST(ConfigTest, AdaptersLeaveRoutersAndMtpLayersAsTheyAre) {
  const Config plain = ParseConfig(kSmall, kPath, {}, Job::kSft);
  EXPECT_GT(plain.sft.mtp_loss_scale, 0);
  const Config lora = ParseConfig(kSmall, kPath, {"lora.r=8"}, Job::kSft);
  EXPECT_EQ(lora.sft.mtp_loss_scale, 0);
  EXPECT_EQ(lora.sft.router_bias_update_speed, 0);
  const auto refused = [&](std::vector<std::string> sets, Job job) {
    sets.push_back("lora.r=8");
    return ErrorOf(kSmall, sets, job);
  };
  EXPECT_NE(refused({"sft.mtp_loss_scale=0.1"}, Job::kSft).find("sft.mtp_loss_scale"),
            std::string::npos);
  EXPECT_NE(refused({"grpo.router_bias_update_speed=0.1"}, Job::kGrpo).find("router's bias"),
            std::string::npos);
  EXPECT_NE(refused({"sft.loss_type=pairwise"}, Job::kSft).find("scalar head"), std::string::npos);
  EXPECT_NE(refused({"grpo.expert_balance_loss=1"}, Job::kGrpo).find("trains the router"),
            std::string::npos);
  EXPECT_NE(ErrorOf(kSmall, {"lora.adapter=a"}, Job::kSft).find("lora.r is 0"), std::string::npos);
  EXPECT_NE(ErrorOfSet("lora.target_modules=[]").find("a list of names"), std::string::npos);
}

TEST(ConfigTest, RefusesLibTorchsForwardWhereActorsMustAgreeToTheBit) {
  EXPECT_NE(ErrorOfSet("learner.forward=libtorch").find("learner.forward"), std::string::npos);
  EXPECT_EQ(ErrorOfSet("learner.forward=libtorch", Job::kSft), "no error");
  EXPECT_EQ(ErrorOf(kSmall, {"learner.forward=libtorch", "numerics=mixed"}), "no error");
}

TEST(ConfigTest, ReadsVerlsNames) {
  const Config c = Small({"data.train_batch_size=16",
                          "actor_rollout_ref.rollout.n=6",
                          "actor_rollout_ref.rollout.top_k=-1",
                          "actor_rollout_ref.actor.ppo_mini_batch_size=4",
                          "actor_rollout_ref.actor.ppo_epochs=3",
                          "actor_rollout_ref.actor.clip_ratio=0.1",
                          "actor_rollout_ref.actor.use_kl_loss=true",
                          "actor_rollout_ref.actor.kl_loss_coef=0.02",
                          "actor_rollout_ref.actor.kl_loss_type=low_var_kl",
                          "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean",
                          "actor_rollout_ref.actor.optim.lr=0.0003",
                          "data.max_response_length=100",
                          "algorithm.adv_estimator=rloo",
                          "algorithm.norm_adv_by_std_in_grpo=false",
                          "algorithm.filter_groups.enable=true",
                          "algorithm.filter_groups.max_num_gen_batches=7",
                          "algorithm.rollout_correction.rollout_is=token",
                          "algorithm.rollout_correction.rollout_is_threshold=2",
                          "reward_model.overlong_buffer.enable=true",
                          "reward_model.overlong_buffer.len=20",
                          "trainer.total_training_steps=24",
                          "trainer.save_freq=-1"});
  EXPECT_EQ(c.grpo.groups_per_step, 16);
  EXPECT_EQ(c.grpo.num_generations, 6);
  EXPECT_EQ(c.grpo.top_k, 0);
  EXPECT_EQ(c.grpo.mini_batches, 4);
  EXPECT_EQ(c.grpo.num_iterations, 3);
  EXPECT_EQ(c.grpo.epsilon, 0.1);
  EXPECT_EQ(c.grpo.beta, 0.02);
  EXPECT_EQ(c.grpo.kl_estimator, "k3");
  EXPECT_EQ(c.grpo.loss_aggregation, "seq-mean-token-mean");
  EXPECT_EQ(c.grpo.learning_rate, 0.0003);
  EXPECT_EQ(c.grpo.max_completion_length, 100);
  EXPECT_EQ(c.grpo.advantage_estimator, "rloo");
  EXPECT_EQ(c.grpo.scale_rewards, "none");
  EXPECT_TRUE(c.grpo.dynamic_sampling);
  EXPECT_EQ(c.grpo.max_gen_batches, 7);
  EXPECT_EQ(c.grpo.rollout_correction.mode, "token_truncate");
  EXPECT_EQ(c.grpo.rollout_correction.clip_max, 2.0);
  EXPECT_EQ((*c.grpo.soft_overlong)["max_length"], 100);
  EXPECT_EQ(c.grpo.max_steps, 24);
  EXPECT_EQ(c.grpo.save_steps, 0);
}

TEST(ConfigTest, ANameOfVerlWithoutACounterpartOrGivenTwiceIsTold) {
  EXPECT_NE(ErrorOfSet("actor_rollout_ref.actor.kl_loss_type=abs").find("has no counterpart"),
            std::string::npos);
  EXPECT_NE(ErrorOfSet("actor_rollout_ref.actor.fsdp=1").find("unknown setting"),
            std::string::npos);
  EXPECT_NE(ErrorOfSet("actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean").find("gspo"),
            std::string::npos);
  EXPECT_NE(ErrorOf(kSmall, {"grpo.num_generations=4", "actor_rollout_ref.rollout.n=4"})
                .find("given twice, also as grpo.num_generations"),
            std::string::npos);
  // A coefficient without its switch is off, as there.
  EXPECT_EQ(Small({"actor_rollout_ref.actor.kl_loss_coef=0.5"}).grpo.beta, 0.0);
  EXPECT_NE(HelpKeys().find("actor_rollout_ref.rollout.n -> grpo.num_generations"),
            std::string::npos);
}

TEST(ConfigTest, ABatchIsWholeOptimizerSteps) {
  EXPECT_NE(ErrorOf(kSmall, {"grpo.groups_per_step=8", "grpo.mini_batches=3"}).find("must divide"),
            std::string::npos);
  EXPECT_NE(ErrorOf(kSmall, {"grpo.num_iterations=3", "grpo.max_steps=100"}).find("whole batches"),
            std::string::npos);
  EXPECT_EQ(ErrorOf(kSmall, {"grpo.num_iterations=3", "grpo.max_steps=9"}), "no error");
  EXPECT_NE(ErrorOfSet("grpo.eval_steps=2").find("data.eval"), std::string::npos);
  EXPECT_NE(ErrorOfSet("grpo.sync_ref_model=true").find("grpo.beta"), std::string::npos);
  EXPECT_EQ(
      ErrorOf(kSmall, {"grpo.top_p=0.9", "grpo.truncated_sampling=renormalise", "grpo.max_lag=1"}),
      "no error");
}

TEST(ConfigTest, AcceptsTheFlatNamesOfTheRolloutCorrection) {
  const Config c = Small({"grpo.vllm_importance_sampling_mode=token_truncate",
                          "grpo.vllm_importance_sampling_clip_max=2"});
  EXPECT_EQ(c.grpo.rollout_correction.mode, "token_truncate");
  EXPECT_EQ(c.grpo.rollout_correction.clip_max, 2.0);
  const Config on = Small({"grpo.vllm_importance_sampling_correction=true"});
  EXPECT_EQ(on.grpo.rollout_correction.mode, "sequence_mask");
  EXPECT_EQ(on.grpo.rollout_correction.clip_max, 3.0);
  EXPECT_NE(
      ErrorOf(kSmall, {"grpo.vllm_importance_sampling_cap=2", "grpo.rollout_correction.clip_max=2"})
          .find("given twice"),
      std::string::npos);
}

TEST(ConfigTest, ALossCanBeProbedWithEverySetting) {
  const Grpo grpo = GrpoFromSets({"grpo.loss_type=gspo", "grpo.off_policy_mask_threshold=0.5",
                                  "grpo.epsilon_high=5.0", "grpo.rollout_correction.mode=none"});
  EXPECT_EQ(grpo.importance_sampling_level, "sequence");
  EXPECT_EQ(grpo.off_policy_mask_threshold, 0.5);
  EXPECT_THROW(GrpoFromSets({"grpo.epsilom=1"}), UserError);
  EXPECT_THROW(GrpoFromSets({"reward.on_error=stop"}), UserError);
}

TEST(ConfigTest, ListsWhatDiffersBetweenTwoConfigs) {
  const Json a = ToJson(Small()), b = ToJson(Small({"grpo.max_steps=7", "threads=3"}));
  EXPECT_EQ(Differences(a, b, {"threads"}), std::vector<std::string>{"grpo.max_steps: 100 -> 7"});
  EXPECT_EQ(Differences(a, b, {"grpo", "threads"}), std::vector<std::string>{});
}

TEST(ConfigTest, EveryKeyHasItsDefaultAndMeaningInTheHelp) {
  const std::string help = HelpKeys();
  for (const Field& field : Fields()) {
    EXPECT_NE(help.find(field.key + " = "), std::string::npos) << field.key;
    EXPECT_FALSE(field.meaning.empty()) << field.key;
  }
}

TEST(ConfigTest, EveryDefaultPassesItsOwnRange) {
  const Config defaults;
  for (const Field& field : Fields()) {
    Config copy;
    EXPECT_EQ(field.set(copy, field.get(defaults)), "") << field.key;
  }
}

}  // namespace
}  // namespace temper::configs
