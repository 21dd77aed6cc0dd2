#include "learner/ops.h"

#include <gtest/gtest.h>

#include "kernels/ops.h"
#include "tests/learner/tiny_policy.h"

namespace temper::learner {
namespace {

/// Forward against Plain, and the explicit gradient against LibTorch's through Plain,
/// in every mode.
class OpsTest : public testing::TestWithParam<engine::Numerics> {
 protected:
  OpsTest()
      : config_(engine::TinyConfig()),
        policy_(TinyPolicy(config_, 5, 2, /*plain=*/false, GetParam())) {
    torch::manual_seed(3);
    const std::shared_ptr<Pack> pack = RandomBatch(config_, {7, 1, 33, 8}, 11).pack;
    for (int branch : {6, 3, 2}) pack->AddBranch(3, std::vector<std::int32_t>(std::size_t(branch)));
    pack_ = pack;
    table_.resize(std::size_t(64) * config_.qk_rope_dim);
    kernels::RopeTable(config_.rope_frequencies().data(), config_.qk_rope_dim, 64,
                       config_.rope_amplitude(), table_.data());
    context_.config = &config_;
    context_.pool = &policy_->pool();
    context_.rope_table = table_.data();
    context_.pack = pack_;
    context_.numerics = GetParam();
  }

  torch::Tensor Master(const std::string& name, std::vector<std::int64_t> shape = {}) {
    const Parameters::Entry& entry = policy_->parameters().Find(name);
    if (shape.empty()) shape = entry.spec.shape;
    // What the forward reads; the masters where nothing is rounded.
    return torch::from_blob(const_cast<float*>(policy_->published().values()) + entry.offset, shape,
                            torch::kFloat32)
        .clone();
  }

  static double Distance(const torch::Tensor& a, const torch::Tensor& b) {
    return ((a - b).norm() / (b.norm() + 1e-12)).item<double>();
  }

  void Check(c10::intrusive_ptr<Op> op, Tensors in) {
    for (torch::Tensor& t : in) {
      if (t.defined()) t.set_requires_grad(true);
    }
    Tensors kernel, plain;
    {
      torch::NoGradGuard guard;
      kernel = op->Forward(in);
      plain = op->Plain(in);
    }
    ASSERT_EQ(kernel.size(), plain.size());
    Tensors grad;
    for (std::size_t i = 0; i < kernel.size(); ++i) {
      // A value near the middle of two BF16 or E4M3 numbers may fall to either side.
      EXPECT_LT(Distance(kernel[i], plain[i]), GetParam().rounds() ? 2e-3 : 2e-6) << "output " << i;
      grad.push_back(torch::randn_like(kernel[i]));
    }
    std::vector<bool> needs;
    for (const torch::Tensor& t : in) needs.push_back(t.defined());
    torch::NoGradGuard guard;  // as autograd calls it
    const Tensors wanted = op->Op::Backward(in, grad, needs);
    const Tensors found = op->Backward(in, grad, needs);
    for (std::size_t i = 0; i < in.size(); ++i) {
      if (!in[i].defined()) continue;
      ASSERT_TRUE(found[i].defined()) << "gradient of input " << i;
      EXPECT_LT(Distance(found[i], wanted[i]), GetParam().quantizes_inputs() ? 3e-3 : 5e-6)
          << "gradient of input " << i;
    }
  }

  const int kTokens = 60;
  engine::ModelConfig config_;
  std::unique_ptr<Policy> policy_;
  std::shared_ptr<const Pack> pack_;
  std::vector<float> table_;
  OpContext context_;
};

TEST_P(OpsTest, EmbeddingAddsUpTheGradientsOfRepeatedIds) {
  Check(c10::make_intrusive<EmbedOp>(context_, &policy_->weights(),
                                     std::vector<std::int32_t>{3, 100, 3, 0, 3}),
        {Master("model.embed_tokens.weight")});
}

TEST_P(OpsTest, RmsNormHasTheGradientOfItsPlainForm) {
  Check(c10::make_intrusive<RmsNormOp>(context_, &policy_->weights().norm(), 1e-6f),
        {torch::randn({kTokens, config_.hidden_size}) * 3, Master("model.norm.weight")});
}

TEST_P(OpsTest, LinearHasTheGradientOfItsPlainFormWithAndWithoutResidual) {
  const torch::Tensor x = torch::randn({kTokens, config_.heads * config_.v_dim});
  const torch::Tensor w = Master("model.layers.1.self_attn.o_proj.weight");
  Check(c10::make_intrusive<LinearOp>(context_, &policy_->weights().layer(1).o),
        {x, w, torch::Tensor()});
  Check(c10::make_intrusive<LinearOp>(context_, &policy_->weights().layer(1).o),
        {x, w, torch::randn({kTokens, config_.hidden_size})});
}

TEST_P(OpsTest, GatedMlpHasTheGradientOfItsPlainForm) {
  const std::int64_t h = config_.hidden_size;
  Check(c10::make_intrusive<MlpOp>(context_, &policy_->weights().layer(0).mlp),
        {torch::randn({kTokens, h}),
         Master("model.layers.0.mlp.gate_proj.weight", {2 * config_.intermediate_size, h}),
         Master("model.layers.0.mlp.down_proj.weight"), torch::randn({kTokens, h})});
}

TEST_P(OpsTest, AbsorbedAttentionHasTheGradientOfTheNaiveForm) {
  Check(c10::make_intrusive<AttentionOp>(context_, &policy_->weights().layer(2)),
        {torch::randn({kTokens, config_.heads * config_.qk_dim()}),
         torch::randn({kTokens, config_.latent_dim()}),
         Master("model.layers.2.self_attn.kv_a_layernorm.weight"),
         Master("model.layers.2.self_attn.kv_b_proj.weight")});
}

TEST_P(OpsTest, ExpertsHaveTheGradientOfTheirPlainFormThroughTheGatesToo) {
  const std::int64_t h = config_.hidden_size, width = config_.moe_intermediate_size;
  const std::string p = "model.layers.1.mlp.";
  for (bool shared : {true, false}) {
    Check(c10::make_intrusive<MoeOp>(context_, &policy_->weights().layer(1), 0),
          {torch::randn({kTokens, h}), torch::randn({kTokens, h}), Master(p + "gate.weight"),
           Master(p + "experts.0.gate_proj.weight", {config_.experts, 3 * width * h}),
           shared ? Master(p + "shared_experts.gate_proj.weight", {2 * width, h}) : torch::Tensor(),
           shared ? Master(p + "shared_experts.down_proj.weight") : torch::Tensor()});
  }
}

TEST_P(OpsTest, HeadHasTheGradientOfLogpAndEntropyAtAnyTemperature) {
  Targets targets;
  for (int t = 1; t < kTokens; t += 2) {
    targets.row.push_back(t);
    targets.target.push_back(t * 7 % config_.vocab_size);
  }
  for (float temperature : {1.0f, 0.7f}) {
    Check(c10::make_intrusive<HeadOp>(context_, &policy_->weights().head(), targets, temperature,
                                      /*entropy=*/true),
          {torch::randn({kTokens, config_.hidden_size}), Master("lm_head.weight")});
  }
}

TEST_P(OpsTest, HeadHasTheGradientOfTheKeptTokensAlone) {
  Targets targets;
  for (int t = 1; t < kTokens; t += 2) {
    targets.row.push_back(t);
    targets.target.push_back(t * 7 % (config_.vocab_size - 5));
  }
  std::vector<std::vector<std::int32_t>> kept(targets.row.size());
  for (std::size_t r = 0; r < kept.size(); ++r) {
    // Every third id and the target: any set will do.
    for (std::int32_t id = std::int32_t(r % 3); id < config_.vocab_size; id += 3) {
      if (id != targets.target[r]) kept[r].push_back(id);
    }
    kept[r].push_back(targets.target[r]);
    std::sort(kept[r].begin(), kept[r].end());
  }
  TargetForms forms;
  forms.kept = std::make_shared<const decltype(kept)>(std::move(kept));
  Check(c10::make_intrusive<HeadOp>(context_, &policy_->weights().head(), targets, 0.7f,
                                    /*entropy=*/true, forms),
        {torch::randn({kTokens, config_.hidden_size}), Master("lm_head.weight")});
}

TEST_P(OpsTest, HeadHasTheGradientOfATeachersDistribution) {
  Targets targets;
  std::vector<WeightedIds> soft;
  for (int t = 0; t < kTokens; ++t) {
    targets.row.push_back(t);
    targets.target.push_back(t * 5 % config_.vocab_size);
    soft.emplace_back();
    if (t % 3 == 0) continue;  // of the target itself
    for (std::int32_t id : {t % 7, 7 + t % 11, 20 + t % 5}) {
      soft.back().ids.push_back(id);
      soft.back().weights.push_back(0.1f * float(1 + id % 4));
    }
  }
  TargetForms forms;
  forms.soft = std::make_shared<const decltype(soft)>(std::move(soft));
  Check(c10::make_intrusive<HeadOp>(context_, &policy_->weights().head(), targets, 0.7f,
                                    /*entropy=*/true, forms),
        {torch::randn({kTokens, config_.hidden_size}), Master("lm_head.weight")});
}

TEST_P(OpsTest, HeadCountsTheTargetsThatAreTheLargestLogit) {
  const torch::Tensor hidden = torch::randn({kTokens, config_.hidden_size});
  const torch::Tensor best = torch::mm(hidden, Master("lm_head.weight").t()).argmax(1);
  Targets targets;
  for (int t = 0; t < 10; ++t) {
    targets.row.push_back(t);
    targets.target.push_back(std::int32_t(best[t].item<std::int64_t>() + (t < 4 ? 0 : 1)) %
                             config_.vocab_size);
  }
  HeadOp op(context_, &policy_->weights().head(), targets, 1.0f, false);
  op.Forward({hidden, torch::Tensor()});
  EXPECT_EQ(op.correct(), 4);
}

INSTANTIATE_TEST_SUITE_P(Modes, OpsTest, testing::ValuesIn(AllNumerics()), [](const auto& mode) {
  std::string name = mode.param.id();
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
  return name;
});

TEST(E4m3BlocksTest, LibTorchsFormHasTheKernelsBits) {
  torch::manual_seed(5);
  kernels::ThreadPool pool(2);
  for (const auto recipe : {kernels::ScaleRecipe::kPow2, kernels::ScaleRecipe::kFp32}) {
    for (const int k : {1, 127, 128, 300}) {
      torch::Tensor x = torch::randn({64, k}) * torch::exp(10 * torch::randn({64, 1}));
      x[0].zero_();
      x[1].fill_(448);          // the scale is 1: an exact power of two
      x[2].fill_(448 * 0.25f);  // and 1/4
      x[3].fill_(1e-30f);
      const int blocks = (k + kernels::kBlock - 1) / kernels::kBlock;
      torch::Tensor want = torch::empty({64, k}), scales = torch::empty({64, blocks});
      kernels::QuantizeActivations(x.data_ptr<float>(), k, 64, k, recipe, want.data_ptr<float>(), k,
                                   scales.data_ptr<float>(), pool);
      want = want * scales.repeat_interleave(kernels::kBlock, 1).narrow(1, 0, k);
      EXPECT_TRUE(torch::equal(E4m3Blocks(x, recipe), want)) << k;
    }
  }
}

}  // namespace
}  // namespace temper::learner
