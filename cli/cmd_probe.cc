#include <climits>
#include <cstdio>
#include <functional>
#include <iostream>

#include "cli/args.h"
#include "cli/child.h"
#include "cli/commands.h"
#include "cli/model.h"
#include "configs/error.h"
#include "engine/data/row_ids.h"
#include "engine/probe.h"
#include "kernels/sampling.h"

namespace temper::cli {
namespace {

void DeclareForward(Args* args, engine::ProbeOptions* options) {
  args->Text("--model", "DIR", "model folder", &options->model).Required();
  args->Text("--ids", "F.json", "[[ids...], ...], used as given", &options->ids).Required();
  args->Text("--out", "O.safetensors", "written", &options->out).Required();
  args->Text("--dtype", "M", "fp32, bf16, fp8 or fp8-w8a8", &options->dtype);
  args->Integer("--chunk", "prompt tokens a forward", 1, INT_MAX, &options->chunk);
  args->Integer("--threads", "0 = all cores", 0, 4096, &options->threads);
}

int Logits(const Arguments& arguments) {
  engine::ProbeOptions options;
  options.threads = 0;
  Args args("temper probe logits", "Logits and chosen experts of given ids.");
  DeclareForward(&args, &options);
  args.Text("--cache-dtype", "C", "fp32, bf16 or fp8", &options.cache_dtype);
  args.Text("--fp8-scale", "S", "of weights quantised here: pow2 or fp32", &options.fp8_scale);
  if (!args.Parse(arguments)) return 0;
  options.threads = Threads(options.threads);
  engine::ProbeLogits(options);
  return 0;
}

int Logprobs(const Arguments& arguments) {
  engine::ProbeOptions options;
  options.threads = 0;
  std::string side, prompt_lens;
  Args args("temper probe logprobs",
            "Log-probs of given ids as the actor or the learner computes them.");
  DeclareForward(&args, &options);
  args.Text("--side", "S", "actor (incremental) or learner (packed)", &side).Required();
  args.Text("--prompt-lens", "[..]", "prompt tokens, 1 each by default; actor: fed at once",
            &prompt_lens);
  args.Text("--cache-dtype", "C", "how keys and values are stored", &options.cache_dtype);
  args.Text("--fp8-scale", "S", "of weights quantised here: pow2 or fp32", &options.fp8_scale);
  args.Integer("--batch", "actor: sequences decoded together", 1, INT_MAX, &options.batch);
  if (!args.Parse(arguments)) return 0;
  if (side == "learner") {
    Arguments forwarded = {"probe", "logprobs"};
    forwarded.insert(forwarded.end(), arguments.begin(), arguments.end());
    ExecLearner(forwarded);
  }
  if (side != "actor") args.Fail("--side: " + configs::Quote(side) + " must be actor or learner");
  options.prompt_lens = engine::ParsePromptLens(prompt_lens);
  options.threads = Threads(options.threads);
  engine::ProbeLogprobs(options);
  return 0;
}

int Grad(const Arguments& arguments) {
  Arguments forwarded = {"probe", "grad"};
  forwarded.insert(forwarded.end(), arguments.begin(), arguments.end());
  ExecLearner(forwarded);
}

int Sample(const Arguments& arguments) {
  std::int64_t seed = 0, group = 0, sample = 0, positions = 1;
  Args args("temper probe sample", "The uniforms that sampling uses, one a line.");
  args.Integer("--seed", "the run's", std::int64_t{0}, INT64_MAX, &seed);
  args.Integer("--group", "grp of the rollout; prompt_index of generate", std::int64_t{0},
               INT64_MAX, &group);
  args.Integer("--sample", "number in the group", std::int64_t{0}, std::int64_t{UINT32_MAX},
               &sample);
  args.Integer("--positions", "how many, from 0", std::int64_t{0}, std::int64_t{UINT32_MAX},
               &positions);
  if (!args.Parse(arguments)) return 0;
  for (std::int64_t position = 0; position < positions; ++position) {
    const float u = kernels::SampleUniform(
        static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(group),
        static_cast<std::uint32_t>(sample), static_cast<std::uint32_t>(position));
    std::printf("%.9g\n", static_cast<double>(u));
  }
  return 0;
}

/// A JSON value a line on stdin, a JSON object a line on stdout; a bad line gives {"error"}.
int ForEachLine(const std::function<Json(const Json& value, const std::string& where)>& answer) {
  bool failed = false;
  std::int64_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const std::string where = "stdin:" + std::to_string(number);
    try {
      PrintLine(answer(configs::ParseJson(line, where), where).dump());
    } catch (const UserError& error) {
      failed = true;
      const std::string what = error.what();
      const bool placed = what.rfind(where, 0) == 0;
      PrintLine(Json{{"error", placed ? what : where + ": " + what}}.dump(
          -1, ' ', false, Json::error_handler_t::replace));
    }
  }
  return failed ? 2 : 0;
}

int Tokens(const Arguments& arguments) {
  std::string model_dir;
  Args args("temper probe tokens", "Encodes and decodes: a JSON string a line on stdin.");
  args.Text("--model", "DIR", "folder with tokenizer.json", &model_dir).Required();
  if (!args.Parse(arguments)) return 0;
  const engine::Tokenizer tokenizer(model_dir);
  return ForEachLine([&](const Json& text, const std::string& where) -> Json {
    if (!text.is_string()) {
      throw UserError(where + ": " + configs::Brief(text) + " must be a JSON string");
    }
    const std::vector<std::int32_t> ids = tokenizer.Encode(text.get_ref<const std::string&>());
    return {{"ids", ids}, {"text", tokenizer.Decode(ids, false)}};
  });
}

int Template(const Arguments& arguments) {
  std::string model_dir;
  Args args("temper probe template",
            "Renders chats: a list of messages a line on stdin, or an object with \"messages\".");
  args.Text("--model", "DIR", "folder with tokenizer.json and a chat template", &model_dir)
      .Required();
  args.Note(
      "Object lines: {\"messages\", \"add_generation_prompt\": false, \"continue_final_message\": "
      "false, \"tools\"}; what else stands there is a variable of the template (\"thinking\").\n");
  if (!args.Parse(arguments)) return 0;
  const engine::Tokenizer tokenizer(model_dir);
  return ForEachLine([&](const Json& line, const std::string&) -> Json {
    const engine::Chat chat = engine::ReadChat(line);
    const engine::ChatTemplate::Text chat_text =
        tokenizer.chat().Render(chat.messages, chat.options);
    const std::vector<std::int32_t> ids = tokenizer.Encode(chat_text.text);
    Json out = {{"text", chat_text.text}, {"ids", ids}};
    if (!chat_text.generated.empty()) {
      out["assistant_masks"] =
          engine::MarkSpans(chat_text.text, ids, chat_text.generated, tokenizer);
    }
    return out;
  });
}

}  // namespace

int Probe(const Arguments& args) {
  constexpr Command kProbes[] = {
      {"logits", "logits, experts and MTP logits of given ids", Logits},
      {"logprobs", "log-probs of given ids, actor's side or learner's", Logprobs},
      {"fp8", "codes, scales and products of given matrices", ProbeFp8},
      {"grad", "gradient of every weight for given ids and masks", Grad},
      {"loss", "loss, gradient and advantages of given log-probs", ProbeLoss},
      {"sample", "the random numbers of sampling", Sample},
      {"template", "chats to text and ids", Template},
      {"tokens", "text to ids and back", Tokens},
  };
  return RunGroup("temper probe", "Numbers to hold Temper against another implementation.", kProbes,
                  args);
}

}  // namespace temper::cli
