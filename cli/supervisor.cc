#include "cli/supervisor.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "cli/model.h"
#include "configs/error.h"

namespace temper::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kTick = std::chrono::milliseconds(20);
constexpr double kQuick = 3;  // seconds
constexpr int kQuickDeaths = 8;

// What the handler may touch.
volatile std::sig_atomic_t signals = 0;
volatile std::sig_atomic_t last_signal = 0;

extern "C" void OnSignal(int signal) {
  signals = signals + 1;
  last_signal = signal;
}

void CatchSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

std::optional<struct stat> StatOf(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) return std::nullopt;
  return found;
}

bool Same(const struct stat& a, const struct stat& b) {
  return a.st_ino == b.st_ino && a.st_mtim.tv_sec == b.st_mtim.tv_sec &&
         a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

std::string FirstLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string HowItEnded(int code, const std::string& log) {
  if (code > 128) return "killed by signal " + std::to_string(code - 128);
  return "exit " + std::to_string(code) + ": " + LastLine(log);
}

void Say(const std::string& what) { std::fprintf(stderr, "temper: %s\n", what.c_str()); }

std::vector<Peer> MakePeers(const configs::Config& config) {
  const std::string logs = config.output_dir + "/logs/";
  // In a synchronous run actors and learner take turns, so that actors may have every core;
  // otherwise they get half.
  const int cores = std::max(1, Threads(config.threads) / (config.grpo.max_lag == 0 ? 1 : 2));
  const int share = std::max(1, cores / std::max(1, config.actors.count));
  const int threads = config.actors.threads > 0 ? config.actors.threads : share;
  std::vector<Peer> peers;
  for (int i = 1; i <= config.actors.count; ++i) {
    const std::string name = "a" + std::to_string(i);
    Peer& peer = peers.emplace_back();
    peer.name = name;
    peer.args = {"actor", "--name", name, "--threads", std::to_string(threads)};
    if (config.actors.device != "cpu")
      peer.args.insert(peer.args.end(), {"--device", config.actors.device});
    peer.log = logs + "actor-" + std::to_string(i) + ".log";
  }
  for (int i = 1; i <= config.reward_workers.count; ++i) {
    const std::string name = "w" + std::to_string(i);
    Peer& peer = peers.emplace_back();
    peer.name = name;
    peer.args = {"reward-worker", "--name", name};
    peer.log = logs + "reward-worker-" + std::to_string(i) + ".log";
  }
  return peers;
}

}  // namespace

Supervisor::Supervisor(const configs::Config& config, Arguments learner_args)
    : config_(config),
      endpoint_path_(config.output_dir + "/endpoint"),
      endpoint_before_(StatOf(endpoint_path_)),
      peers_(MakePeers(config)),
      learner_((CatchSignals(), config.learner.ranks), learner_args) {}

bool Supervisor::EndpointReady() {
  if (!endpoint_.empty()) return true;
  const auto now = StatOf(endpoint_path_);
  if (!now || now->st_size == 0 || (endpoint_before_ && Same(*now, *endpoint_before_)))
    return false;
  endpoint_ = FirstLine(endpoint_path_);
  std::filesystem::create_directories(config_.output_dir + "/logs");
  return !endpoint_.empty();
}

void Supervisor::Start(Peer* peer) {
  Arguments args = peer->args;
  args.insert(args.end(), {"--connect", endpoint_});
  if (!config_.wire.keys.empty()) args.insert(args.end(), {"--keys", config_.wire.keys});
  if (!peer->death.empty()) Say(peer->name + " ended (" + peer->death + "); started again");
  peer->child.emplace(peer->name, ThisProgram(), args, peer->log, peer->log);
}

void Supervisor::Tend(Peer* peer) {
  if (peer->finished) return;
  if (!peer->child) {
    if (Clock::now() >= peer->start_at) Start(peer);
    return;
  }
  const std::optional<int> code = peer->child->Ended();
  if (!code) return;
  if (*code == 0) {
    peer->finished = true;
    return;
  }
  peer->quick_deaths = peer->child->seconds() < kQuick ? peer->quick_deaths + 1 : 0;
  peer->death = HowItEnded(*code, peer->log);
  peer->child.reset();
  // An exit 2 would be the same again: its input is wrong.
  if (*code == 2 || peer->quick_deaths >= kQuickDeaths) GiveUp(*peer, *code == 2);
  const int pause_ms = std::min(4000, 250 << std::min(peer->quick_deaths, 8));
  peer->start_at = Clock::now() + std::chrono::milliseconds(pause_ms);
}

void Supervisor::GiveUp(const Peer& peer, bool user) {
  learner_.Signal(SIGTERM);
  const auto until = Clock::now() + std::chrono::seconds(10);
  while (!learner_.Ended() && Clock::now() < until) std::this_thread::sleep_for(kTick);
  const std::string what =
      peer.name + " " +
      (user ? "cannot work" : "died " + std::to_string(peer.quick_deaths) + " times in a row") +
      " (" + peer.death + "); the run has ended; " + peer.log + " says more";
  if (user) throw UserError(what);
  throw MachineError(what);
}

void Supervisor::ForwardSignals() {
  if (signals == signals_seen_) return;
  signals_seen_ = signals;
  if (signals_seen_ == 1) {
    Say("stopping; once more ends everything at once");
    learner_.Signal(SIGTERM);
  } else {
    learner_.Signal(SIGKILL);
    for (Peer& peer : peers_) {
      if (peer.child) peer.child->Signal(SIGKILL);
    }
  }
}

/// They have the learner's goodbye, unless it was killed: then nobody answers them any more. Who
/// doesn't go by itself is told, then killed (~Child).
void Supervisor::EndPeers(bool goodbye) {
  const auto began = Clock::now();
  const auto patience = std::chrono::seconds(goodbye ? 1 : 0);
  bool told = false;
  for (;;) {
    const bool all = std::all_of(peers_.begin(), peers_.end(), [](Peer& peer) {
      return !peer.child || peer.child->Ended().has_value();
    });
    const auto waited = Clock::now() - began;
    if (all || waited > patience + std::chrono::seconds(goodbye ? 2 : 1)) return;
    if (!told && waited >= patience) {
      told = true;
      for (Peer& peer : peers_) {
        if (peer.child) peer.child->Signal(SIGTERM);
      }
    }
    std::this_thread::sleep_for(kTick);
  }
}

int Supervisor::Run() {
  std::optional<int> code;
  while (!(code = learner_.Ended())) {
    ForwardSignals();
    if (signals_seen_ == 0 && EndpointReady()) {
      for (Peer& peer : peers_) Tend(&peer);
    }
    std::this_thread::sleep_for(kTick);
  }
  EndPeers(/*goodbye=*/*code <= 128);
  const std::string go_on = "; continue with --resume";
  if (signals_seen_ > 0) {
    throw MachineError("stopped by signal " + std::to_string(last_signal) + go_on);
  }
  if (*code > 128) {
    throw MachineError(learner_.culprit() + " was killed by signal " + std::to_string(*code - 128) +
                       go_on);
  }
  return *code;
}

}  // namespace temper::cli
