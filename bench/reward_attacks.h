#pragma once
// What the commands of reward_bench share.
#include <string>

#include "reward/function.h"
#include "reward/host.h"

namespace temper::reward {

inline FunctionSpec Script(const std::string& text, const std::string& name) {
  FunctionSpec spec;
  spec.name = name;
  spec.path = name + ".lua";
  spec.script = text;
  spec.sha256 = Sha256Hex(text);
  return spec;
}

inline SampleInput Sample(const std::string& completion, const std::string& answer) {
  SampleInput sample;
  sample.prompt_json = "\"What is 17 + 25?\"";
  sample.completion = completion;
  sample.completion_ids.assign(32, 7);
  sample.answer = answer;
  sample.row_json = R"({"prompt":"What is 17 + 25?","answer":"42"})";
  sample.finish_reason = "stop";
  return sample;
}

/// Each attack `times` times, deadline 100 ms, between honest functions. 0 if each ended as it
/// should and nobody's reward changed.
int RunAttacks(int times);

}  // namespace temper::reward
