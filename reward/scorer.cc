#include "reward/scorer.h"

#include <unistd.h>

#include <stdexcept>

namespace temper::reward {
namespace {

SampleInput ToInput(const wire::ScoreRequest& request, wire::ScoreRequest::Sample* sample) {
  SampleInput input;
  input.prompt_json = request.prompt;
  input.completion = std::move(sample->completion);
  input.completion_ids = std::move(sample->completion_ids);
  input.answer = request.answer;
  input.row_json = request.row;
  input.finish_reason = std::move(sample->finish);
  input.version = sample->version;
  input.step = request.step;
  return input;
}

wire::ScorePart ToWire(ScorePart part) {
  wire::ScorePart out;
  out.name = std::move(part.name);
  out.value = part.value;
  out.weight = part.weight;
  out.status = std::move(part.status);
  out.message = std::move(part.message);
  out.line = part.line;
  out.script_sha256 = std::move(part.script_sha256);
  out.micros = part.micros;
  return out;
}

}  // namespace

wire::ScoreResult Answer(RewardHost& host, wire::ScoreRequest request) {
  std::vector<SampleInput> inputs;
  inputs.reserve(request.samples.size());
  for (auto& sample : request.samples) inputs.push_back(ToInput(request, &sample));
  std::vector<ScoreResult> scores = host.ScoreGroup(inputs);
  wire::ScoreResult answer;
  answer.id = request.id;
  answer.grp = request.grp;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    wire::ScoreResult::Sample sample;
    sample.sample = request.samples[i].sample;
    sample.score = scores[i].score;
    sample.status = scores[i].status;
    sample.parts.reserve(scores[i].parts.size());
    for (ScorePart& part : scores[i].parts) sample.parts.push_back(ToWire(std::move(part)));
    answer.samples.push_back(std::move(sample));
  }
  return answer;
}

Scorer::Scorer(RewardHost host, std::uint64_t session, int event_fd)
    : host_(std::move(host)), session_(session), event_fd_(event_fd), thread_([this] { Run(); }) {}

Scorer::~Scorer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Scorer::Add(wire::ScoreRequest request) {
  {
    const std::lock_guard lock(mutex_);
    work_.emplace_back(std::move(request));
  }
  changed_.notify_one();
}

void Scorer::Use(ScriptTexts files) {
  {
    const std::lock_guard lock(mutex_);
    work_.emplace_back(std::move(files));
  }
  changed_.notify_one();
}

std::optional<Scored> Scorer::Take() {
  const std::lock_guard lock(mutex_);
  if (!answers_.empty()) {
    Scored scored = std::move(answers_.front());
    answers_.pop_front();
    return scored;
  }
  if (failure_) std::rethrow_exception(failure_);
  return std::nullopt;
}

void Scorer::Run() {
  try {
    while (true) {
      Work work;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || !work_.empty(); });
        if (stopping_) return;
        work = std::move(work_.front());
        work_.pop_front();
      }
      if (const auto* const files = std::get_if<ScriptTexts>(&work)) {
        host_.UseScripts(*files);
        continue;
      }
      Scored scored{session_, Answer(host_, std::get<wire::ScoreRequest>(std::move(work)))};
      const std::lock_guard lock(mutex_);
      answers_.push_back(std::move(scored));
      const std::uint64_t one = 1;
      if (write(event_fd_, &one, sizeof one) != sizeof one) {
        throw std::logic_error("reward worker: the event descriptor is closed");
      }
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
    const std::uint64_t one = 1;
    (void)!write(event_fd_, &one, sizeof one);
  }
}

}  // namespace temper::reward
