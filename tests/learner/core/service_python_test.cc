// The actor that was written from docs/formats.md alone, against a whole service. Needs pyzmq,
// which scripts/setup installs.
#include <cstdlib>

#include "configs/json.h"
#include "tests/learner/core/service_fixture.h"
#include "wire/keys.h"

namespace temper::learner {
namespace {

class PythonActorTest : public ServiceTest {
 protected:
  void SetUp() override {
    const char* given = std::getenv("TEMPER_PYTHON");
    // The system's own, where scripts/setup puts python3-zmq, may stand behind another in the path.
    for (const char* candidate : {given, "python3", "/usr/bin/python3"}) {
      if (candidate == nullptr) continue;
      python_ = candidate;
      if (std::system((python_ + " -c 'import zmq' 2>/dev/null").c_str()) == 0)
        return ServiceTest::SetUp();
    }
    FAIL() << "no pyzmq: scripts/setup installs python3-zmq; TEMPER_PYTHON names another Python";
  }
  void TearDown() override {
    if (!folder_.empty()) ServiceTest::TearDown();
  }
  /// Version `v` of a small set: some elements differ from version to version.
  static std::shared_ptr<const WeightSet> Version(std::uint32_t v) {
    auto set = std::make_shared<WeightSet>();
    set->version = v;
    set->bytes.resize(3 << 20);
    const auto add = [&](const char* name, const char* dtype, std::uint64_t width,
                         std::uint64_t bytes) {
      const std::uint64_t begin = set->tensors.empty() ? 0 : set->tensors.back().end;
      set->tensors.push_back(
          {name, dtype, {static_cast<std::int64_t>(bytes / width)}, begin, begin + bytes, ""});
    };
    add("a", "F32", 4, 1 << 20);
    add("b", "BF16", 2, 1 << 20);
    add("c", "F8_E4M3", 1, 512 << 10);
    add("d", "F32", 4, 512 << 10);
    for (std::uint32_t i = 0; i <= v; ++i) {
      set->bytes[(i * 7919 + 5) % (1 << 20)] = std::byte{9};
      for (std::uint64_t at = 2 << 20; at < (2 << 20) + (512 << 10); at += 300) {
        set->bytes[at + i] = std::byte{7};
      }
      // Whole: every byte of d.
      std::fill(set->bytes.begin() + (5 << 19), set->bytes.end(), static_cast<std::byte>(i));
    }
    for (WeightSet::Tensor& t : set->tensors) {
      t.sha256 = configs::Sha256Hex(
          std::span<const std::byte>(set->bytes).subspan(t.begin, t.end - t.begin));
    }
    return set;
  }

  std::string python_;
};

TEST_F(PythonActorTest, ServesSixVersionsByAFullSetAndDeltas) {
  wire::NewKeys(folder_ + "/keys", {"python"});
  config_.wire.keys = folder_ + "/keys/learner.json";
  Service::Options options = Options();
  options.bind = "tcp://127.0.0.1:*";
  const std::string out = folder_ + "/python.out";
  std::thread actor;
  int code = -1;
  {
    Service service(options);
    const std::string command = python_ + " " + TEMPER_SOURCE_DIR + "/tests/wire/python_actor.py " +
                                service.endpoint() + " " + folder_ + "/keys/python.json >" + out;
    actor = std::thread([&code, command] { code = std::system(command.c_str()); });
    FakePeer worker(service.endpoint(), HelloOf("w1", wire::Role::kRewardWorker), ScorerReply(),
                    config_.wire.keys);
    for (std::int64_t step = 1; step <= 6; ++step) {
      service.Publish(Version(static_cast<std::uint32_t>(step - 1)));
      for (const ScoredGroup& group : service.NextBatch(step).groups) {
        for (const store::RolloutRow& row : group.samples) {
          EXPECT_EQ(row.version, step - 1);
          EXPECT_EQ(row.actor, "python");
          EXPECT_EQ(row.ids.size(), 3u);
        }
      }
    }
  }
  actor.join();
  EXPECT_EQ(code, 0);
  const Json done = configs::ReadJsonFile(out);
  EXPECT_EQ(done["full"], 1) << done;
  EXPECT_EQ(done["delta"], 5) << done;
  EXPECT_EQ(done["rollouts"], 96) << done;
  EXPECT_EQ(done["acknowledged"], 96) << done;
}

}  // namespace
}  // namespace temper::learner
