// Rollouts a second from wire frames to the acknowledgement behind a durable commit, beside raw
// SQLite that writes the same bytes with the same durability; and how long an acknowledgement takes
// at a steady rate: ingest_bench [--rollouts N --tokens T --rate R --folder DIR]. Exit 1 below 60 %
// of raw SQLite or above 10 ms at the median.
#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "bench/lone_learner.h"
#include "cli/args.h"
#include "configs/error.h"
#include "store/open.h"

namespace temper::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kGroupSize = 8;
constexpr int kRounds = 5;

struct Options {
  std::int64_t rollouts = 4096;
  int tokens = 1000, rate = 500;
  std::string folder;
};

Micros Now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch())
      .count();
}

/// One learner that has granted everything to one actor; rollouts come as frames.
class Ingest {
 public:
  Ingest(const Options& o, const std::string& database) {
    LoneLearner::Options options;
    options.config.name = "ingest";
    options.config.grpo.num_generations = kGroupSize;
    options.config.grpo.groups_per_step = static_cast<int>(o.rollouts / kGroupSize);
    options.config.grpo.max_completion_length = o.tokens;
    options.database = database;
    options.send = [this](const std::string&, const wire::Message& message) {
      if (message.kind != static_cast<std::uint16_t>(wire::Kind::kAck)) return;
      for (const wire::RolloutId& id : wire::Ack::Decode(message).rollouts)
        acknowledged.emplace_back(id, Now());
    };
    learner.emplace(std::move(options), 0, 0, 0, Now());
    wire::Hello hello;
    hello.name = "a1";
    hello.instance = 1;
    hello.numerics = {"canon-1/fp32/cache-fp32"};
    hello.rows = 1 << 20;
    learner->Handle("a1", hello.Encode(), Now());
    auto set = std::make_shared<learner::WeightSet>();
    const std::vector<std::byte> bytes(4);
    set->bytes.assign(bytes);
    set->tensors.push_back({"w", "F32", {1}, 0, 4, std::string(64, '0')});
    learner->Publish(std::move(set));
    learner->Handle("a1", wire::WeightsLoaded{1, 0, {}}.Encode(), Now());
    learner->Open(1, Now());
    learner->Commit();
  }

  std::vector<std::pair<wire::RolloutId, Micros>> acknowledged;
  std::optional<LoneLearner> learner;
};

std::vector<std::vector<wire::Bytes>> Frames(const Options& o) {
  std::vector<std::vector<wire::Bytes>> frames;
  for (std::int64_t i = 0; i < o.rollouts; ++i) {
    wire::Rollout rollout;
    rollout.session = 1;
    rollout.id = {static_cast<std::uint64_t>(i / kGroupSize),
                  static_cast<std::uint32_t>(i % kGroupSize), 0};
    rollout.finish = "length";
    for (int t = 0; t < o.tokens; ++t) {
      rollout.ids.push_back((t * 7 + static_cast<int>(i)) % 90);
      rollout.logp.push_back(-0.001f * static_cast<float>((t * 13 + i) % 4000));
    }
    frames.push_back(wire::Encode(rollout.Encode()));
  }
  return frames;
}

double TemperRate(const Options& o, const std::vector<std::vector<wire::Bytes>>& frames,
                  const std::string& database) {
  Ingest ingest(o, database);
  const Micros began = Now();
  for (const auto& frame : frames) {
    ingest.learner->Handle("a1", wire::Decode(frame), Now());
    ingest.learner->Tick(Now());
  }
  ingest.learner->Commit();
  const double seconds = static_cast<double>(Now() - began) * 1e-6;
  if (ingest.acknowledged.size() != frames.size())
    throw std::logic_error("ingest: " + std::to_string(ingest.acknowledged.size()) + " of " +
                           std::to_string(frames.size()) + " were acknowledged");
  return static_cast<double>(frames.size()) / seconds;
}

/// One table, one prepared statement, 64 rows a transaction, FULL.
double RawRate(const Options& o, const std::vector<std::vector<wire::Bytes>>& frames,
               const std::string& database) {
  store::Connection db(database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  db.SetPragma("page_size", "8192", "8192");
  store::SetWriterPragmas(db);
  db.Execute(
      "CREATE TABLE row (grp INTEGER, sample INTEGER, ids BLOB, logp BLOB, mask BLOB) STRICT");
  std::vector<wire::Rollout> rows;
  for (const auto& frame : frames) rows.push_back(wire::Rollout::Decode(wire::Decode(frame)));
  const std::string mask(static_cast<std::size_t>(o.tokens), '\1');
  const Micros began = Now();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i % 64 == 0) db.Execute("BEGIN IMMEDIATE");
    const auto bytes = [](const auto& values) {
      return std::string(reinterpret_cast<const char*>(values.data()), values.size() * 4);
    };
    db.Prepare("INSERT INTO row VALUES (?, ?, ?, ?, ?)")
        .Unsigned(rows[i].id.grp)
        .Int(rows[i].id.sample)
        .Blob(bytes(rows[i].ids))
        .Blob(bytes(rows[i].logp))
        .Blob(mask)
        .Run();
    if (i % 64 != 63 && i + 1 < rows.size()) continue;
    db.Execute("COMMIT");
    // As the store does, every 1,024 pages.
    if (i / 64 % 12 == 11)
      sqlite3_wal_checkpoint_v2(db.handle(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  }
  return static_cast<double>(rows.size()) / (static_cast<double>(Now() - began) * 1e-6);
}

/// Milliseconds from a frame's arrival to its acknowledgement, at `rate` a second.
std::vector<double> Delays(const Options& o, const std::vector<std::vector<wire::Bytes>>& frames,
                           const std::string& database) {
  Ingest ingest(o, database);
  std::vector<Micros> came;
  const Micros began = Now();
  const std::size_t n = std::min<std::size_t>(frames.size(), static_cast<std::size_t>(o.rate) * 3);
  while (ingest.acknowledged.size() < n) {
    const Micros now = Now();
    const auto due = static_cast<std::size_t>(static_cast<double>(now - began) * 1e-6 * o.rate);
    while (came.size() < std::min(n, due)) {
      came.push_back(Now());
      ingest.learner->Handle("a1", wire::Decode(frames[came.size() - 1]), Now());
    }
    ingest.learner->Tick(Now());
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  std::vector<double> delays;
  for (const auto& [id, at] : ingest.acknowledged)
    delays.push_back(1e-3 * static_cast<double>(at - came[id.grp * kGroupSize + id.sample]));
  std::sort(delays.begin(), delays.end());
  return delays;
}

int Main(const std::vector<std::string>& arguments) {
  Options o;
  cli::Args args("ingest_bench", "Rollouts a second into the database, beside raw SQLite.");
  args.Integer("--rollouts", "a multiple of 64", 64, 1'000'000, &o.rollouts);
  args.Integer("--tokens", "a rollout", 1, 100'000, &o.tokens);
  args.Integer("--rate", "of the acknowledgements' test, a second", 1, 100'000, &o.rate);
  args.Text("--folder", "DIR", "where the databases lie; the temporary folder", &o.folder);
  if (!args.Parse(arguments)) return 0;
  if (o.folder.empty()) o.folder = std::filesystem::temp_directory_path().string();
  std::string folder = o.folder + "/temper-ingest-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) throw MachineError(folder + ": no folder");
  const auto frames = Frames(o);
  std::vector<double> shares;
  for (int round = 0; round < kRounds; ++round) {  // side by side: the disk's rate changes
    const std::string name = folder + "/" + std::to_string(round);
    const double raw = RawRate(o, frames, name + "raw.db");
    const double ours = TemperRate(o, frames, name + ".db");
    std::printf("raw SQLite %.0f rollouts/s, temper %.0f: %.0f %%\n", raw, ours, 100 * ours / raw);
    shares.push_back(ours / raw);
  }
  const std::vector<double> delays = Delays(o, frames, folder + "/delays.db");
  std::filesystem::remove_all(folder);
  std::sort(shares.begin(), shares.end());
  const double share = shares[shares.size() / 2], median = delays[delays.size() / 2];
  std::printf(
      "median %.0f %% of raw SQLite (bar: 60 %%); at %d rollouts/s an acknowledgement takes "
      "%.1f ms at the median (bar: 10 ms), %.1f ms at the 99th percentile\n",
      100 * share, o.rate, median, delays[delays.size() * 99 / 100]);
  return share >= 0.6 && median <= 10 ? 0 : 1;
}

}  // namespace
}  // namespace temper::bench

int main(int argc, char** argv) {
  try {
    return temper::bench::Main({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ingest_bench: %s\n", error.what());
    return 2;
  }
}
