#include "learner/core/serving.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "configs/error.h"

namespace temper::learner {
namespace {

int MakeEvent() {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw MachineError(std::string("eventfd: ") + std::strerror(errno));
  return fd;
}

std::int64_t WallMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string ReasonOf(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "unknown error";
  }
}

}  // namespace

Micros SteadyMicros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Serving::Serving(std::unique_ptr<wire::Server> server, store::Trajectories store,
                 Inbox::Options options)
    : server_(std::move(server)),
      recorder_(std::move(store)),
      fabric_(options.fabric ? std::make_unique<engine::FabricThread>(options.fabric) : nullptr),
      inbox_(std::move(options), SteadyMicros()),
      wake_fd_(MakeEvent()) {
  // Signals belong to the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Serving::~Serving() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    failed_ = std::uncaught_exceptions() > 0;
  }
  Wake();
  thread_.join();
  close(wake_fd_);
}

Micros Serving::Now() const { return SteadyMicros(); }

void Serving::Wake() {
  const std::uint64_t one = 1;
  // A full counter wakes as well; nothing else can fail.
  [[maybe_unused]] const ssize_t n = write(wake_fd_, &one, sizeof(one));
}

void Serving::Enqueue(Command command) {
  {
    const std::lock_guard lock(mutex_);
    if (error_) std::rethrow_exception(error_);
    commands_.push_back(std::move(command));
  }
  Wake();
}

void Serving::Post(Command command) { Enqueue(std::move(command)); }

void Serving::Call(const Command& command) {
  bool done = false;
  std::exception_ptr thrown;
  Enqueue([&](Context& at) {
    std::exception_ptr caught;
    Commit();
    try {
      command(at);
    } catch (...) {
      caught = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    thrown = caught;
    done = true;
    changed_.notify_all();
  });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done || error_; });
  if (!done) std::rethrow_exception(error_);
  if (thrown) std::rethrow_exception(thrown);
}

Batch Serving::NextBatch(std::int64_t batch, const Command& prepare) {
  Call(prepare);
  Post([this, batch](Context& at) {
    wanted_batch_ = batch;
    at.inbox.Open(batch, Now(), &at.effects);
  });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return batch_ || error_; });
  if (!batch_) std::rethrow_exception(error_);
  return *std::exchange(batch_, std::nullopt);
}

std::vector<ScoredGroup> Serving::Evaluate(const Command& prepare) {
  Call(prepare);
  Post([this](Context& at) {
    wanted_evals_ = true;
    at.inbox.GrantEvals(Now(), &at.effects);
  });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return evals_ || error_; });
  if (!evals_) std::rethrow_exception(error_);
  return *std::exchange(evals_, std::nullopt);
}

void Serving::Run() {
  std::exception_ptr error;
  try {
    Serve();
  } catch (...) {
    error = std::current_exception();
  }
  bool failed = error != nullptr;
  {
    const std::lock_guard lock(mutex_);
    error_ = error ? error : std::make_exception_ptr(std::logic_error("the service has ended"));
    failed = failed || failed_;
    changed_.notify_all();
  }
  LeavePeers(error    ? ReasonOf(error)
             : failed ? "the learner ended with an error"
                      : "the run is over",
             failed);
}

void Serving::Serve() {
  while (RunCommands()) {
    PumpFrames();
    inbox_.Tick(Now(), &effects_);
    if (const auto ended = fabric_ ? fabric_->Ended() : std::nullopt)
      inbox_.BroadcastEnded(*ended, &effects_);
    Perform();
    Deliver();
    if (recorder_.Due(Now())) Commit();
    Micros timeout = recorder_.DueIn(Now(), Inbox::kHeartbeat / 10);
    if (server_->queued()) timeout = std::min<Micros>(timeout, 1000);
    server_->Wait(timeout, wake_fd_);
  }
  Commit();
}

bool Serving::RunCommands() {
  std::uint64_t count;
  // Only resets the counter; EAGAIN: nobody woke us.
  [[maybe_unused]] const ssize_t n = read(wake_fd_, &count, sizeof(count));
  std::deque<Command> commands;
  {
    const std::lock_guard lock(mutex_);
    // After the reset: a wake that comes later is seen by the next wait.
    if (stop_ && commands_.empty()) return false;
    commands.swap(commands_);
  }
  Context context{recorder_.store(), inbox_, effects_};
  for (const Command& command : commands) {
    command(context);
    Perform();
  }
  return true;
}

void Serving::PumpFrames() {
  // Bounded, so that commands and commits have their turn under any load.
  wire::Incoming incoming;
  for (int i = 0; i < kFramesATurn && server_->Receive(&incoming); ++i) {
    if (incoming.error.empty()) {
      inbox_.Handle(incoming.peer, incoming.message, Now(), &effects_);
    } else {
      inbox_.HandleInvalid(incoming.peer, incoming.error, &effects_);
    }
    Perform();
  }
  for (const std::string& peer : server_->Flush()) {
    inbox_.PeerGone(peer, &effects_);
    Perform();
  }
  for (const std::string& note : server_->refusals().TakeNotes()) effects_.notes.push_back(note);
}

void Serving::Perform() {
  // A send may find a peer gone, which has effects of its own.
  while (!effects_.send.empty() || !effects_.writes.empty() || !effects_.acks.empty() ||
         !effects_.notes.empty() || effects_.broadcast || effects_.stop_broadcast ||
         effects_.failure) {
    Effects effects = std::exchange(effects_, {});
    for (const std::string& note : effects.notes) std::fprintf(stderr, "serve: %s\n", note.c_str());
    for (StoreWrite& write : effects.writes) recorder_.Write(std::move(write), Now(), WallMs());
    recorder_.Acknowledge(effects.acks);
    if (effects.broadcast) {
      const auto& [group, weights] = *effects.broadcast;
      fabric_->Send(group, weights->bytes, weights);
    }
    if (effects.stop_broadcast) fabric_->Stop();
    for (const auto& [peer, message] : effects.send) {
      if (!server_->Send(peer, message)) inbox_.PeerGone(peer, &effects_);
    }
    if (effects.failure) {
      Commit();
      std::rethrow_exception(effects.failure);
    }
  }
}

void Serving::Commit() {
  for (const auto& [peer, ack] : recorder_.Commit()) {
    if (!server_->Send(peer, ack.Encode())) inbox_.PeerGone(peer, &effects_);
  }
}

void Serving::Deliver() {
  if (wanted_batch_ != 0 && inbox_.Complete(wanted_batch_)) {
    Batch batch = inbox_.Take(std::exchange(wanted_batch_, 0));
    const std::lock_guard lock(mutex_);
    batch_ = std::move(batch);
    changed_.notify_all();
  }
  if (wanted_evals_ && inbox_.unfinished_evals() == 0) {
    wanted_evals_ = false;
    std::vector<ScoredGroup> evals = inbox_.TakeEvals();
    const std::lock_guard lock(mutex_);
    evals_ = std::move(evals);
    changed_.notify_all();
  }
}

void Serving::LeavePeers(const std::string& reason, bool failed) {
  try {
    Effects goodbye;
    inbox_.SayGoodbye(reason, failed, &goodbye);
    for (const auto& [peer, message] : goodbye.send) server_->Send(peer, message);
    // A socket that closes may take the goodbye along: wait until each peer answered or left.
    const Micros deadline = Now() + kGoodbyeMicros;
    wire::Incoming incoming;
    while (!inbox_.peers().empty() && Now() < deadline) {
      Effects ignored;
      server_->Wait(2000);
      while (server_->Receive(&incoming)) {
        if (incoming.error.empty()) inbox_.Handle(incoming.peer, incoming.message, Now(), &ignored);
      }
      for (const std::string& id : server_->Flush()) inbox_.PeerGone(id, &ignored);
      for (const std::string& id : inbox_.peers()) {
        if (!server_->Send(id, wire::Heartbeat().Encode())) inbox_.PeerGone(id, &ignored);
      }
    }
    server_->Linger(500);
    server_.reset();
  } catch (const std::exception& e) {
    // The peers find out by the silence.
    std::fprintf(stderr, "serve: goodbye failed: %s\n", e.what());
  }
}

}  // namespace temper::learner
