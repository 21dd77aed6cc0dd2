#include "learner/rank_watch.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

#include "configs/error.h"
#include "learner/rank_store.h"

namespace temper::learner {

namespace {

constexpr auto kPulse = std::chrono::milliseconds(1000 / RankWatch::kPulsesASecond);
constexpr double kSilence = 1.5;  // seconds: a living rank has been heard several times

std::string KeyOf(int rank) { return "pulse/" + std::to_string(rank); }

std::string Where(const RankPlace& place) {
  return place.address + ":" + std::to_string(place.port);
}

std::string Ranks(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
  return text;
}

}  // namespace

struct RankWatch::Shared {
  struct Rank {
    long long count = 0;   // of its pulses
    long long number = 0;  // of the exchange it has come to
    int still = 0;         // own pulses since its last one
  };

  explicit Shared(const RankPlace& place_) : place(place_), ranks(std::size_t(place_.size)) {}

  /// "2 17": the second pulse, in exchange 17.
  void Pulse() {
    char text[64];
    std::snprintf(text, sizeof text, "%lld %lld", ++count, number.load());
    store->set(KeyOf(place.rank), Bytes(text));
    std::vector<std::string> keys;
    for (int r = 0; r < place.size; ++r) keys.push_back(KeyOf(r));
    const auto texts = store->multiGet(keys);
    const std::lock_guard lock(mutex);
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      Rank now;
      const std::string text(texts[r].begin(), texts[r].end());
      std::sscanf(text.c_str(), "%lld %lld", &now.count, &now.number);
      now.still = now.count == ranks[r].count ? ranks[r].still + 1 : 0;
      ranks[r] = now;
    }
    ++pulses;
  }

  static void Run(const std::shared_ptr<Shared>& shared) {
    std::unique_lock lock(shared->mutex);
    while (!shared->stopped) {
      lock.unlock();
      try {
        shared->Pulse();
      } catch (const std::exception&) {
        lock.lock();
        shared->store_gone = true;
        return;
      }
      lock.lock();
      shared->wake.wait_for(lock, kPulse, [&] { return shared->stopped; });
    }
  }

  const RankPlace place;
  c10::intrusive_ptr<c10d::Store> store;  // of the thread alone, once it runs
  std::atomic<long long> number = 0;
  long long count = 0;

  std::mutex mutex;
  std::condition_variable wake;
  std::vector<Rank> ranks;
  long long pulses = 0;       // of this process that reached the store
  long long seen_pulses = 0;  // when Silent was last asked
  int stuck = 0;              // times Silent was asked since it saw a new one
  bool stopped = false, store_gone = false;
};

RankWatch::RankWatch(const RankPlace& place, double timeout_s)
    : shared_(std::make_shared<Shared>(place)) {
  shared_->store = ConnectStore(place, timeout_s, /*serve=*/place.rank == 0 && !place.agent_store);
  c10d::Store& store = *shared_->store;
  try {
    if (store.add("here/" + std::to_string(place.rank), 1) > 1)
      throw UserError("RANK: another process at " + Where(place) + " is " + place.Name() + " too");
    store.set(KeyOf(place.rank), Bytes("1 0"));
    std::vector<int> missing;
    for (int r = 0; r < place.size; ++r) {
      try {
        // The first wait takes the patience of all.
        store.wait({KeyOf(r)}, missing.empty() ? Milliseconds(timeout_s) : Milliseconds(0.1));
      } catch (const c10::Error&) {
        missing.push_back(r);
      }
    }
    if (!missing.empty()) {
      throw MachineError(place.Name() + ": " + Ranks(missing) + " did not come to " + Where(place) +
                         " within " + std::to_string(int(timeout_s)) + " s");
    }
  } catch (const c10::Error&) {
    throw MachineError(place.Name() + ": the store at " + Where(place) +
                       " is gone: rank 0 has ended");
  }
  std::thread(Shared::Run, shared_).detach();
}

RankWatch::~RankWatch() {
  const std::lock_guard lock(shared_->mutex);
  shared_->stopped = true;
  shared_->wake.notify_all();
}

void RankWatch::Arrive(std::int64_t number) { shared_->number = number; }

std::string RankWatch::Silent(double seconds) const {
  Shared& shared = *shared_;
  const std::lock_guard lock(shared.mutex);
  const int pulses = std::max(1, int(seconds * kPulsesASecond));
  shared.stuck = shared.pulses == shared.seen_pulses ? shared.stuck + 1 : 0;
  shared.seen_pulses = shared.pulses;
  int longest = 0;
  for (int r = 0; r < shared.place.size; ++r) {
    if (r != shared.place.rank) longest = std::max(longest, shared.ranks[std::size_t(r)].still);
  }
  std::vector<int> silent;
  for (int r = 0; r < shared.place.size && longest >= pulses; ++r) {
    // Who ended because of another did so later.
    const bool first = shared.ranks[std::size_t(r)].still + kPulsesASecond > longest;
    if (r != shared.place.rank && first) silent.push_back(r);
  }
  if (!silent.empty()) return Ranks(silent) + (silent.size() == 1 ? " is gone" : " are gone");
  if (!shared.store_gone && shared.stuck < pulses) return "";
  if (shared.place.agent_store) return "torchrun's store at " + Where(shared.place) + " is gone";
  return "rank 0 is gone";
}

std::string RankWatch::Missing(std::int64_t number) const {
  // A rank that was heard just before it died needs its time to fall silent.
  const int slices = int(2 * kSilence * kPulsesASecond);
  for (int i = 0; i < slices; ++i) {
    std::this_thread::sleep_for(kPulse);
    const std::string silent = Silent(kSilence);
    if (!silent.empty()) return silent;
  }
  std::vector<int> late;
  const std::lock_guard lock(shared_->mutex);
  for (int r = 0; r < shared_->place.size; ++r) {
    if (shared_->ranks[std::size_t(r)].number < number) late.push_back(r);
  }
  if (late.empty()) return "";
  return Ranks(late) + (late.size() == 1 ? " lives but has" : " live but have") +
         " not come to the exchange";
}

}  // namespace temper::learner
