#include "reward/channel.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <thread>

#include "configs/error.h"

namespace temper::reward {
namespace {

using std::chrono::microseconds;

/// A nap ends this much late at most, in place of Linux's 50 us.
constexpr unsigned long kTimerSlackNs = 5000;
constexpr microseconds kLongestNap{1000};

std::chrono::steady_clock::duration Duration(double seconds) {
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(seconds));
}

}  // namespace

Channel::Channel(Zygote& zygote, Job job, double start_timeout_s)
    : zygote_(zygote), job_(std::move(job)), start_timeout_s_(start_timeout_s) {}

Channel::~Channel() {
  try {
    Stop();
  } catch (const MachineError&) {
    // The zygote has gone and took the sandbox with it.
  }
}

double Channel::Seconds(std::size_t samples) const {
  return job_.limits.timeout_s * static_cast<double>(samples);
}

template <typename Read>
std::optional<Outcome> Channel::Answer(double seconds, const Read& read, std::size_t awaited,
                                       std::uint32_t limit) {
  const auto since = Clock::now();
  std::string_view body;
  std::optional<Outcome> failure;
  try {
    switch (Next(since + Duration(seconds), &body, awaited, limit)) {
      case Wait::kFrame:
        read(body);
        return std::nullopt;
      case Wait::kDeadline: {
        char text[64];
        std::snprintf(text, sizeof text, "no answer in %g s", seconds);
        failure = Failure(Status::kTimeout, text, since);
        break;
      }
      case Wait::kEnd:
        failure = Failure(Status::kCrashed, Stop(), since);
        break;
    }
  } catch (const FrameError& error) {
    failure = Failure(Status::kCrashed, std::string("it sent ") + error.what(), since);
  }
  Stop();
  return failure;
}

Outcome Channel::Start() {
  if (sandbox_.fd >= 0) {
    // A warm sandbox that died or spoke while nobody asked must not cost the next sample.
    char byte;
    const bool idle = recv(sandbox_.fd, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN;
    if (idle) return loaded_.outcome;
    Stop();
  }
  Spawn();
  // The chunk has a sample's time.
  const auto failure =
      Answer(Seconds(1), [&](std::string_view body) { loaded_ = ReadLoaded(body); });
  return failure ? *failure : loaded_.outcome;
}

void Channel::Spawn() {
  // One that somebody kills at birth (the kernel, for its memory) says nothing of the next.
  constexpr int kTries = 5;
  std::string failure;
  for (int i = 0; i < kTries; ++i) {
    failure = TrySpawn();
    if (failure.empty()) return;
  }
  throw MachineError("reward sandbox: it did not start: " + failure);
}

std::string Channel::TrySpawn() {
  sandbox_ = zygote_.Spawn(job_.limits.memory_mib);
  ++spawned_;
  unsent_.clear();
  received_.clear();
  sent_ = taken_ = 0;
  AppendJob(job_, &unsent_);
  std::string_view body;
  std::string failure = "no answer in " + std::to_string(start_timeout_s_) + " s";
  try {
    const Wait wait = Next(Clock::now() + Duration(start_timeout_s_), &body);
    if (wait == Wait::kFrame) {
      missing_ = ReadReady(body);
      return "";
    }
    if (wait == Wait::kEnd) return Stop();
  } catch (const FrameError& error) {
    failure = error.what();
  }
  Stop();
  throw MachineError("reward sandbox: it did not start: " + failure);
}

std::string Channel::Stop() {
  if (sandbox_.fd < 0) return "";
  const Sandbox ended = sandbox_;
  sandbox_ = {};
  return zygote_.Reap(ended);
}

bool Channel::SendSome() {
  const ssize_t put =
      send(sandbox_.fd, unsent_.data() + sent_, unsent_.size() - sent_, MSG_NOSIGNAL);
  if (put < 0) return errno == EAGAIN || errno == EINTR;
  sent_ += static_cast<std::size_t>(put);
  if (sent_ == unsent_.size()) {
    unsent_.clear();
    sent_ = 0;
  }
  return true;
}

bool Channel::ReceiveSome() {
  if (taken_ > 0) {
    received_.erase(0, taken_);
    taken_ = 0;
  }
  char buffer[65536];
  const ssize_t got = recv(sandbox_.fd, buffer, sizeof buffer, 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  received_.append(buffer, static_cast<std::size_t>(got));
  return got > 0;
}

void Channel::Nap(std::size_t awaited, microseconds left) {
  // Woken by each answer, the host would take more of a core than the scripts do.
  if (awaited < 2) return;
  thread_local const int slack = prctl(PR_SET_TIMERSLACK, kTimerSlackNs);
  (void)slack;
  const microseconds work(static_cast<std::int64_t>(static_cast<double>(awaited) * micros_));
  std::this_thread::sleep_for(std::min({work, left, kLongestNap}));
}

Channel::Wait Channel::Next(Clock::time_point deadline, std::string_view* body, std::size_t awaited,
                            std::uint32_t limit) {
  while (true) {
    *body = TakeFrame(received_, limit, &taken_);
    if (!body->empty()) return Wait::kFrame;
    const auto left = std::chrono::duration_cast<microseconds>(deadline - Clock::now()).count();
    if (left <= 0) return Wait::kDeadline;
    if (!unsent_.empty()) SendSome();
    if (unsent_.empty()) Nap(awaited, microseconds(left));
    pollfd poll_fd{sandbox_.fd, POLLIN, 0};
    if (!unsent_.empty()) poll_fd.events |= POLLOUT;
    // Rounded up: a deadline in less than a millisecond is no reason to spin.
    const int ready = poll(&poll_fd, 1, static_cast<int>(left / 1000 + 1));
    if (ready < 0 && errno != EINTR) throw MachineError("reward sandbox: poll failed");
    if (ready <= 0) continue;
    // What came is read before the end is believed: answers given before a crash count.
    if ((poll_fd.revents & (POLLIN | POLLHUP | POLLERR)) != 0 && !ReceiveSome()) return Wait::kEnd;
    if ((poll_fd.revents & POLLOUT) != 0 && !unsent_.empty()) SendSome();
  }
}

Outcome Channel::Failure(Status status, const std::string& message, Clock::time_point since) const {
  Outcome outcome;
  outcome.status = status;
  outcome.message = message;
  outcome.micros =
      std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - since).count();
  return outcome;
}

void Channel::Collect(std::size_t count, std::vector<Outcome>* outcomes) {
  for (std::size_t i = 0; i < count; ++i) {
    const bool together = loaded_.scores_groups;
    const double seconds = Seconds(together && i == 0 ? count : 1);
    const auto failure = Answer(
        seconds, [&](std::string_view body) { outcomes->push_back(ReadOutcome(body)); },
        together ? 1 : count - i);
    if (!failure) {
      const auto micros = static_cast<double>(outcomes->back().micros);
      micros_ += (std::min(micros, 1000.0) - micros_) / 64;
      continue;
    }
    outcomes->push_back(*failure);
    return;
  }
  // An answer to no question: this sandbox is no longer ours.
  if (taken_ != received_.size()) Stop();
}

std::vector<Outcome> Channel::Score(std::span<const SampleInput> samples) {
  std::vector<Outcome> outcomes;
  outcomes.reserve(samples.size());
  while (outcomes.size() < samples.size()) {
    const Outcome start = Start();
    if (start.status != Status::kOk) {
      outcomes.resize(samples.size(), start);
      break;
    }
    const auto rest = samples.subspan(outcomes.size());
    if (loaded_.scores_groups) AppendGroup(static_cast<std::uint32_t>(rest.size()), &unsent_);
    for (std::size_t i = 0; i < rest.size(); ++i) {
      AppendSample(rest[i], i == 0 ? nullptr : &rest[i - 1], &unsent_);
    }
    Collect(rest.size(), &outcomes);
    if (loaded_.scores_groups && outcomes.size() < samples.size()) {
      const Outcome failure = outcomes.back();
      outcomes.assign(samples.size(), failure);
    }
  }
  return outcomes;
}

Outcome Channel::Check() { return Start(); }

MadeRows Channel::Prompts(const RowsRequest& request) {
  MadeRows made;
  made.outcome = Start();
  if (made.outcome.status != Status::kOk) return made;
  AppendRowsRequest(request, &unsent_);
  const auto failure = Answer(
      Seconds(static_cast<std::size_t>(std::max(request.count, 1))),
      [&](std::string_view body) { made = ReadRows(body); }, 1, kMaxRowsFrame);
  if (failure) made.outcome = *failure;
  return made;
}

MadeRows Channel::Cases() {
  RowsRequest request;
  request.count = kCases;
  return Prompts(request);
}

}  // namespace temper::reward
