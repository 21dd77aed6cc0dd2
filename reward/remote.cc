#include "reward/remote.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <thread>

#include "configs/error.h"
#include "wire/endpoint.h"
#include "wire/protocol.h"

namespace temper::reward {
namespace {

using Clock = std::chrono::steady_clock;

std::string Hex(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::vector<Outcome> All(std::size_t count, Status status, const std::string& message) {
  return std::vector<Outcome>(count, Failed(status, message));
}

/// A number of the answer, or a failure that says what stands there instead.
Outcome Number(const Json& value, const std::string& what) {
  const double x = value.is_number() ? value.get<double>() : std::nan("");
  if (!std::isfinite(x)) {
    return Failed(Status::kInvalidReturn,
                  what + " is " + configs::Brief(value) + "; it must be a finite number");
  }
  Outcome outcome;
  outcome.score = x;
  return outcome;
}

/// {"score", other numbers} or {"error"}.
Outcome ReadTable(const Json& table) {
  if (table.contains("error")) {
    const Json& error = table.at("error");
    return Failed(Status::kScriptError, error.is_string()
                                            ? error.get<std::string>().substr(0, kMaxMessage / 2)
                                            : configs::Brief(error));
  }
  if (!table.contains("score")) return Failed(Status::kInvalidReturn, "the object has no score");
  if (table.size() > kMaxFields) return Failed(Status::kInvalidReturn, "too many fields");
  if (table.at("score").is_null()) return Failed(Status::kNotApplicable, "");
  Outcome outcome = Number(table.at("score"), "score");
  if (!outcome.score) return outcome;
  for (const auto& [name, value] : table.items()) {
    if (name == "score") continue;
    const Outcome field = Number(value, "field " + configs::Quote(name));
    if (!field.score) return field;
    if (name.empty() || name.size() > kMaxFieldName) {
      return Failed(Status::kInvalidReturn, "a field's name has 1 to 64 bytes");
    }
    outcome.fields.emplace_back(name, *field.score);
  }
  std::sort(outcome.fields.begin(), outcome.fields.end());
  return outcome;
}

Outcome ReadScore(const Json& value) {
  if (value.is_null()) return Failed(Status::kNotApplicable, "");
  return value.is_object() ? ReadTable(value) : Number(value, "the score");
}

}  // namespace

wire::Message RemoteRequest(const std::string& id, std::span<const SampleInput> samples) {
  Json group = Json::object();
  const SampleInput& first = samples[0];
  group["prompt"] = configs::ParseJson(first.prompt_json, "the prompt");
  group["row"] =
      first.row_json.empty() ? Json::object() : configs::ParseJson(first.row_json, "the row");
  group["answer"] = first.answer ? Json(*first.answer) : Json(nullptr);
  group["step"] = first.step;
  for (const SampleInput& sample : samples) {
    group["samples"].push_back(Json{{"completion", sample.completion},
                                    {"completion_ids", sample.completion_ids},
                                    {"finish_reason", sample.finish_reason},
                                    {"version", sample.version}});
  }
  wire::Message message;
  message.kind = static_cast<std::uint16_t>(wire::Kind::kRemoteScores);
  message.header["id"] = id;
  message.AddText(group.dump(-1, ' ', false, Json::error_handler_t::replace));
  return message;
}

std::vector<Outcome> ReadRemoteScores(const wire::Message& answer, std::size_t count) {
  const auto invalid = [&](const std::string& what) {
    return All(count, Status::kInvalidReturn, "the remote answered " + what);
  };
  if (answer.kind == static_cast<std::uint16_t>(wire::Kind::kRefuse)) {
    return All(count, Status::kUnavailable,
               "the remote refused: " + configs::Brief(answer.header.value("reason", Json())));
  }
  if (answer.kind != static_cast<std::uint16_t>(wire::Kind::kRemoteScores)) {
    return invalid("a " + wire::KindName(answer.kind));
  }
  const auto scores = answer.header.find("scores");
  if (scores == answer.header.end() || !scores->is_array()) return invalid("without scores");
  if (scores->size() != count) {
    return invalid(std::to_string(scores->size()) + " scores for " + std::to_string(count) +
                   " samples");
  }
  std::vector<Outcome> outcomes;
  for (const Json& score : *scores) outcomes.push_back(ReadScore(score));
  return outcomes;
}

RemoteReward::RemoteReward(const std::string& endpoint, double timeout_s, int retries)
    : endpoint_(wire::CheckConnect(endpoint, "")), timeout_s_(timeout_s), retries_(retries) {
  std::random_device random;
  next_id_ = std::uint64_t{random()} << 32 | random();
}

RemoteReward::~RemoteReward() = default;

std::vector<Outcome> RemoteReward::Ask(const wire::Message& request, std::size_t count) {
  if (!client_) client_ = std::make_unique<wire::Client>(endpoint_);
  wire::Client& client = *client_;
  client.Send(request);
  const auto until = Clock::now() + std::chrono::duration<double>(timeout_s_);
  while (true) {
    const double left = std::chrono::duration<double>(until - Clock::now()).count();
    if (left <= 0) {
      // The next try's socket knows nothing of this one: what waits in a queue is neither asked nor
      // answered twice.
      client_.reset();
      return {};
    }
    client.Wait(static_cast<std::int64_t>(left * 1e6) + 1, -1, client.queued());
    client.Flush();
    wire::Incoming incoming;
    while (client.Receive(&incoming)) {
      if (!incoming.error.empty()) {
        return All(count, Status::kInvalidReturn, "the remote sent no message: " + incoming.error);
      }
      const Json& header = incoming.message.header;
      const bool ours = header.contains("id") && header["id"] == request.header["id"];
      const bool refusal = incoming.message.kind == static_cast<std::uint16_t>(wire::Kind::kRefuse);
      if (ours || refusal) return ReadRemoteScores(incoming.message, count);
      return All(count, Status::kInvalidReturn, "the remote answered to another request's id");
    }
  }
}

std::vector<Outcome> RemoteReward::Score(std::span<const SampleInput> samples) {
  if (samples.empty()) return {};
  const auto begin = Clock::now();
  const wire::Message request = RemoteRequest(Hex(next_id_++), samples);
  std::vector<Outcome> outcomes;
  if (const std::size_t bytes = request.arrays[0].bytes.view.size(); bytes > wire::kMaxFrameBytes) {
    outcomes = All(samples.size(), Status::kUnavailable,
                   "the group's texts are " + std::to_string(bytes) + " bytes; a message carries " +
                       std::to_string(wire::kMaxFrameBytes));
  }
  for (int attempt = 0; outcomes.empty() && attempt <= retries_; ++attempt) {
    if (attempt > 0) {
      const int pause_ms = std::min(2000, 100 << std::min(attempt - 1, 8));
      std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
    }
    outcomes = Ask(request, samples.size());
  }
  if (outcomes.empty()) {
    char text[64];
    std::snprintf(text, sizeof text, ": no answer in %g s, asked %d times", timeout_s_,
                  retries_ + 1);
    outcomes = All(samples.size(), Status::kUnavailable, endpoint_ + text);
  }
  const auto micros =
      std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin).count();
  for (Outcome& outcome : outcomes) {
    outcome.micros = micros / static_cast<std::int64_t>(samples.size());
  }
  return outcomes;
}

Outcome RemoteReward::Check() {
  Outcome outcome;
  outcome.score = 0.0;  // ok always carries one; whether somebody answers is told by the statuses
  return outcome;
}

}  // namespace temper::reward
