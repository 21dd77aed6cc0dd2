#pragma once
// Scripts, samples and hosts for the tests of reward/.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "reward/function.h"
#include "reward/host.h"
#include "tests/reward/zygote_entry.h"

namespace temper::reward {

inline FunctionSpec Script(const std::string& text, const std::string& name = "f",
                           double weight = 1.0) {
  FunctionSpec spec;
  spec.name = name;
  spec.path = name + ".lua";
  spec.script = text;
  spec.weight = weight;
  spec.sha256 = Sha256Hex(text);
  return spec;
}

inline HostOptions With(std::vector<FunctionSpec> functions, double timeout_s = 10) {
  HostOptions options;
  options.functions = std::move(functions);
  options.limits.timeout_s = timeout_s;
  return options;
}

inline SampleInput Sample(const std::string& completion, const std::string& answer = "42") {
  SampleInput sample;
  sample.prompt_json = "\"17 + 25 =\"";
  sample.completion = completion;
  sample.completion_ids = {1, 2, 3};
  sample.answer = answer;
  sample.row_json = R"({"answer":42,"level":{"n":[1,2.5,null,"x"]},"big":18446744073709551615})";
  sample.finish_reason = "stop";
  sample.version = 17;
  sample.step = 3;
  return sample;
}

inline ScoreResult ScoreOne(const std::string& script, const std::string& completion = "42") {
  RewardHost host(With({Script(script)}));
  const std::vector<SampleInput> samples = {Sample(completion)};
  return host.ScoreGroup(samples).at(0);
}

inline std::string StatusOf(const std::string& script) {
  const ScoreResult result = ScoreOne(script);
  EXPECT_EQ(result.score.has_value(), result.status == "ok") << script;
  EXPECT_EQ(result.parts.at(0).status, result.status) << script;
  return result.status;
}

}  // namespace temper::reward
