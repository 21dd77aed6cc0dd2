#include "reward/worker.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <set>
#include <thread>

#include "configs/config.h"
#include "configs/error.h"
#include "configs/version.h"
#include "reward/function.h"
#include "reward/scorer.h"
#include "reward/zygote.h"
#include "wire/client.h"

namespace temper::reward {
namespace {

using wire::Kind;
using Micros = std::int64_t;

constexpr Micros kHeartbeat = 1'000'000;
constexpr Micros kHelloAgain = 5'000'000;
constexpr Micros kWorrying = 6'000'000;    // without a word from the learner: the log says so
constexpr int kHelloRefusals = 5;          // then this learner speaks another protocol
constexpr std::int64_t kGroupsAtOnce = 2;  // one under way, one waiting: no pause for the way there

Micros Now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::uint64_t RandomId() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

class EventFd {
 public:
  EventFd() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0) throw MachineError("reward worker: eventfd failed");
  }
  EventFd(const EventFd&) = delete;
  ~EventFd() { close(fd_); }
  int get() const { return fd_; }
  void Clear() {
    std::uint64_t count;
    (void)!read(fd_, &count, sizeof count);
  }

 private:
  int fd_;
};

class Worker {
 public:
  explicit Worker(const WorkerOptions& options)
      : options_(options),
        zygote_(std::make_shared<Zygote>(options.zygote_argv)),
        client_(options.endpoint, options.keys),
        instance_(RandomId()),
        timeout_s_(options.first_timeout_s) {}

  int Run() {
    heard_ = Now();
    try {
      SayHello();
      while (!done_ && !Stopped()) Turn();
    } catch (const std::exception& error) {
      Leave(error.what(), true);
      throw;
    }
    if (!done_) Leave("stopped", false);
    return code_;
  }

 private:
  bool Stopped() const { return options_.stop != nullptr && *options_.stop; }
  void Log(const std::string& line) const {
    std::fprintf(stderr, "reward worker %s: %s\n", options_.name.c_str(), line.c_str());
  }
  void Turn();
  void SayHello();
  void Leave(const std::string& reason, bool failed);
  void Handle(const wire::Message& message);
  void OnWelcome(const wire::Welcome& welcome);
  void OnRefuse(const wire::Refuse& refuse);
  void OnGoodbye(const wire::Goodbye& goodbye);
  void SendAnswers();
  void OnScripts(const ScriptTexts& files);
  RewardHost MakeHost(const wire::Welcome& welcome) const;

  const WorkerOptions& options_;
  std::shared_ptr<Zygote> zygote_;  // before the socket: it must not inherit one
  wire::Client client_;
  EventFd event_;
  const std::uint64_t instance_;
  std::uint64_t session_ = 0;  // of the last welcome
  double timeout_s_;
  Micros heard_ = 0, beat_ = 0, hello_ = 0;
  std::unique_ptr<Scorer> scorer_;
  ScriptTexts files_;              // what the scorer was told to use last
  std::set<std::uint64_t> asked_;  // requests whose answer is not sent yet
  bool welcome_ = false, done_ = false, worried_ = false;
  std::string run_;         // of the last welcome
  int hello_refusals_ = 0;  // in a row
  int code_ = 0;
};

void Worker::SayHello() {
  wire::Hello hello;
  hello.role = wire::Role::kRewardWorker;
  hello.name = options_.name;
  hello.instance = instance_;
  hello.pid = getpid();
  hello.temper_version = kVersion;
  hello.rows = kGroupsAtOnce;
  hello.session = session_;
  hello.run = run_;
  client_.Clear();  // whatever waits there is for a learner that no longer knows us
  client_.Send(hello.Encode());
  hello_ = Now();
}

void Worker::Leave(const std::string& reason, bool failed) {
  client_.Linger(500);
  client_.Send(wire::Goodbye{reason, failed}.Encode());
}

void Worker::Turn() {
  const Micros now = Now();
  if (now - heard_ > static_cast<Micros>(timeout_s_ * 1e6)) {
    throw MachineError(options_.endpoint + ": no word from the learner for " +
                       std::to_string((now - heard_) / 1'000'000) + " s");
  }
  if (!welcome_ && now - hello_ >= kHelloAgain) SayHello();
  if (now - beat_ >= kHeartbeat) {
    beat_ = now;
    wire::Held held;
    for (const std::uint64_t id : asked_) held.emplace_back(id, 0);
    if (welcome_ && !client_.queued()) client_.Send(wire::Heartbeat{held}.Encode());
  }
  if (!worried_ && session_ != 0 && now - heard_ > kWorrying) {
    worried_ = true;
    Log("no word from the learner at " + options_.endpoint + " for " +
        std::to_string((now - heard_) / 1'000'000) + " s; " + std::to_string(asked_.size()) +
        " groups are not answered");
  }
  client_.Flush();
  client_.Wait(beat_ + kHeartbeat - now, event_.get(), client_.queued());
  for (const std::string& note : client_.refusals().TakeNotes()) Log(note);
  if (!client_.refused().empty()) throw UserError(client_.refused());
  wire::Incoming incoming;
  while (!done_ && client_.Receive(&incoming)) {
    if (worried_)
      Log("the learner is back after " + std::to_string((Now() - heard_) / 1'000'000) + " s");
    worried_ = false;
    heard_ = Now();
    if (!incoming.error.empty()) {
      Log(incoming.error);
      client_.Send(wire::Refuse{wire::kBadMessage, incoming.error, {}}.Encode());
      continue;
    }
    try {
      Handle(incoming.message);
    } catch (const wire::ProtocolError& error) {
      Log(error.what());
      client_.Send(wire::Refuse{wire::kBadMessage, error.what(), {}}.Encode());
    }
  }
  SendAnswers();
}

void Worker::Handle(const wire::Message& message) {
  switch (static_cast<Kind>(message.kind)) {
    case Kind::kWelcome:
      return OnWelcome(wire::Welcome::Decode(message));
    case Kind::kRefuse:
      return OnRefuse(wire::Refuse::Decode(message));
    case Kind::kGoodbye:
      return OnGoodbye(wire::Goodbye::Decode(message));
    case Kind::kHeartbeat:
      return;
    case Kind::kScoreRequest: {
      wire::ScoreRequest request = wire::ScoreRequest::Decode(message);
      // Before the welcome there is nothing to score with; the learner asks again after a hello. A
      // request that is asked twice is answered once.
      if (scorer_ && asked_.insert(request.id).second) scorer_->Add(std::move(request));
      return;
    }
    case Kind::kScripts:
      return OnScripts(wire::Scripts::Decode(message).files);
    default:
      client_.Send(wire::Refuse{
          wire::kBadMessage,
          "a reward worker takes no " + wire::KindName(message.kind),
          {}}.Encode());
  }
}

RewardHost Worker::MakeHost(const wire::Welcome& welcome) const {
  const configs::Config config =
      configs::ParseConfig(welcome.config, "the learner's config", {}, configs::Job::kGrpo);
  HostOptions host;
  host.zygote = zygote_;
  host.aggregation = config.reward.aggregation;
  // Actors and the learner have the cores as well.
  const unsigned workers = static_cast<unsigned>(std::max(1, config.reward_workers.count));
  host.model_threads =
      static_cast<int>(std::max(1u, std::thread::hardware_concurrency() / 2 / workers));
  host.limits = {config.reward.timeout_s, config.reward.max_instructions, config.reward.memory_mib};
  for (const configs::RewardFunction& entry : config.rewards) {
    // The learner's text counts, not a file of that name on this machine.
    const std::string* text = nullptr;
    for (const auto& [path, content] : welcome.files) {
      if (path == entry.script) text = &content;
    }
    if (!entry.script.empty() && text == nullptr) {
      throw UserError(entry.script + ": the learner sent no text for this reward script");
    }
    host.functions.push_back(MakeFunction(entry, text == nullptr ? std::string() : *text));
  }
  return RewardHost(std::move(host));
}

void Worker::OnWelcome(const wire::Welcome& welcome) {
  timeout_s_ = welcome.peer_timeout_s;
  if (welcome_ && welcome.session == session_) return;
  if (!scorer_ || welcome.session != session_) {
    scorer_.reset();
    asked_.clear();
    files_ = welcome.files;
    RewardHost host = MakeHost(welcome);
    host.Check();
    if (!host.missing_isolation().empty()) {
      Log("this machine has no " + host.missing_isolation() +
          "; scripts still run in processes of their own, but run only scripts that you trust");
    }
    scorer_ = std::make_unique<Scorer>(std::move(host), welcome.session, event_.get());
    Log("joined " + welcome.run + " at " + options_.endpoint);
  } else if (welcome.files != files_) {
    OnScripts(welcome.files);  // they changed while the learner took us for gone
  }
  session_ = welcome.session;
  run_ = welcome.run;
  hello_refusals_ = 0;
  welcome_ = true;
}

/// The learner has run their cases; the requests that follow are theirs.
void Worker::OnScripts(const ScriptTexts& files) {
  if (!scorer_ || files == files_) return;
  for (const auto& [path, text] : files) {
    if (std::find(files_.begin(), files_.end(), std::pair(path, text)) != files_.end()) continue;
    Log(path + ": changed; scored by " + Sha256Hex(text).substr(0, 12) + " from now on");
  }
  files_ = files;
  scorer_->Use(files_);
}

void Worker::OnRefuse(const wire::Refuse& refuse) {
  const bool foreign =
      !welcome_ && refuse.code == wire::kBadMessage && ++hello_refusals_ >= kHelloRefusals;
  if (refuse.code == wire::kNotWelcome || foreign)
    throw UserError("the learner refused us: " + refuse.reason);
  if (refuse.code == wire::kHelloFirst) {
    // A restarted learner, or one that took us for dead: it hands the groups out again.
    welcome_ = false;
    if (Now() - hello_ >= kHeartbeat) SayHello();
    return;
  }
  Log("refused: " + refuse.reason);
}

void Worker::OnGoodbye(const wire::Goodbye& goodbye) {
  Log("the run ended: " + goodbye.reason);
  done_ = true;
  code_ = goodbye.failed ? 3 : 0;
}

void Worker::SendAnswers() {
  event_.Clear();
  if (!scorer_) return;
  while (std::optional<Scored> scored = scorer_->Take()) {
    asked_.erase(scored->result.id);
    if (scored->session != session_) continue;
    if (!client_.Send(scored->result.Encode())) {
      throw MachineError(options_.endpoint + ": the learner takes no answers");
    }
  }
}

}  // namespace

int RunWorker(const WorkerOptions& options) { return Worker(options).Run(); }

}  // namespace temper::reward
