// Hostile files, family by family: each is refused with one exact line, soon, and in little memory.
//
// F1 to F9, F12 to F28, F31 to F34, F36, F37: goldens/families/families.jsonl, line by line.
// F6, F10, F11, F14, F26, F31, F33, F34, F37 in their large forms: LargeOnesCostLittle and below.
// F29: safetensors_test.cc, AFileThatShrinksIsAnErrorNotACrash.
// F30: ShardsThatAreNoFilesAreRefused, hostile_names_test.cc.
// F35: checkpoint_test.cc, NonFiniteWeightsAreRefusedByName.
// F38: tests/learner/checkpoint_test.cc, SkipsTornOnesForTheNewestWhole; tests/store/tools_test.cc,
// ChecksTheFilesOfCheckpoints.
// F39: tests/store/trajectories_test.cc, RefuseWhatPosesAsATable, RefuseBrokenPagesBeforeTheyWrite,
// RefuseForeignMissingAndNewerFiles.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <new>
#include <set>

#include "engine/checkpoint.h"
#include "engine/data/rows.h"
#include "engine/safetensors.h"
#include "engine/template.h"
#include "engine/tokenizer.h"
#include "tests/engine/temp_dir.h"
#include "tests/engine/tiny_model.h"

namespace {

std::atomic<std::size_t> allocated{0};  // bytes by operator new, ever

}  // namespace

// What work a file costs is counted, not timed: other programs' load doesn't change it.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  allocated += bytes;
  void* p = std::malloc(bytes);
  if (!p) throw std::bad_alloc();
  return p;
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
#endif

namespace temper::engine {
namespace {

const std::string kGoldens = TEMPER_SOURCE_DIR "/tests/engine/goldens/";
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

/// Bytes of peak resident memory since the last call with reset.
std::size_t PeakMemory(bool reset) {
  if (reset) std::ofstream("/proc/self/clear_refs") << "5";
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::strtoull(line.c_str() + 6, nullptr, 10) << 10;
  }
  return 0;
}

/// Bytes that this process has read from files.
std::size_t BytesRead() {
  std::ifstream io("/proc/self/io");
  std::string name;
  std::size_t bytes = 0;
  io >> name >> bytes;  // rchar
  return bytes;
}

/// What reading `dir` as `kind` says; the folder's name is left out.
std::string ReadAs(const std::string& kind, const TempDir& dir) {
  std::string what = Refusal([&] {
    if (kind == "safetensors") SafetensorsFile{dir / "f"};
    if (kind == "index") CheckpointReader{dir.path()};
    if (kind == "config") ReadModelConfig(dir.path());
    if (kind == "tokenizer") Tokenizer{dir.path()};
    if (kind == "rows") ReadRows(dir / "f", RowUse::kPrompt, "", "");
    if (kind == "template") {
      ChatTemplates(dir.path()).Render(Json::parse(R"([{"role": "user", "content": "x"}])"), {});
    }
  });
  for (std::size_t at; (at = what.find(dir.path() + "/")) != what.npos;) {
    what.erase(at, dir.path().size() + 1);
  }
  return what;
}

const char* FileName(const std::string& kind) {
  if (kind == "index") return "model.safetensors.index.json";
  if (kind == "config") return "config.json";
  if (kind == "tokenizer") return "tokenizer.json";
  return kind == "template" ? "chat_template.jinja" : "f";
}

/// Refused, in 64 MiB beside the file; it is read twice at most, and what is ever allocated bounds
/// the work done.
std::string Checked(const std::string& kind, const TempDir& dir) {
  struct stat status {};
  ::stat((dir / FileName(kind)).c_str(), &status);
  const auto size = static_cast<std::size_t>(status.st_size);
  const std::size_t before = PeakMemory(true), read = BytesRead(), made = allocated;
  std::string what = ReadAs(kind, dir);
  const std::size_t grown = PeakMemory(false) - std::min(before, PeakMemory(false));
  // A template runs until its own limits of steps and values end it.
  const std::size_t work = kind == "template" ? std::size_t{1} << 30 : 4 * size + (64u << 20);
  EXPECT_LT(allocated - made, work) << what;
  EXPECT_LT(BytesRead() - read, 2 * size + (std::size_t{1} << 20)) << what;
  if (!kSanitized) {
    EXPECT_LT(grown, size + (std::size_t{64} << 20)) << what;
  }
  EXPECT_EQ(what.find('\n'), what.npos) << "one line";
  EXPECT_LT(what.size(), 600u);
  return what;
}

std::string WithLength(std::uint64_t length, const std::string& rest) {
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + rest;
}

std::string Unhex(const std::string& hex) {
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return out;
}

/// The bytes of one line of families.jsonl.
std::string BytesOf(const Json& line) {
  if (line.contains("hex")) return Unhex(line.at("hex"));
  if (line.contains("text")) return line.at("text");
  if (line.contains("header")) {
    const std::string header = line.at("header");
    const std::uint64_t length =
        line.contains("length") ? std::stoull(line.at("length").get<std::string>()) : header.size();
    return WithLength(length, header + std::string(line.at("data").get<std::size_t>(), 'd'));
  }
  const bool config = line.at("kind") == "config";
  Json base =
      config ? TinyConfig().raw : configs::ReadJsonFile(kGoldens + "tokenizer/tokenizer.json");
  // A number that JSON's own reader would change is put in as text.
  base[Json::json_pointer(line.at("at").get<std::string>())] = "@@";
  std::string text = base.dump();
  return text.replace(text.find("\"@@\""), 4, line.at("value").get<std::string>());
}

TEST(FileFamilies, EachIsRefusedWithItsLine) {
  std::set<std::string> seen;
  std::istringstream lines(ReadText(kGoldens + "families/families.jsonl"));
  const char* write = std::getenv("TEMPER_WRITE_FAMILIES");  // development: fills in "want"
  std::ofstream out;
  if (write) out.open(write);
  int number = 0;
  for (std::string text; std::getline(lines, text);) {
    Json line = Json::parse(text);
    const std::string kind = line.at("kind");
    const TempDir dir;
    if (kind == "index") {
      const std::string header = R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                 R"("u":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})";
      dir.Write("s.safetensors", WithLength(header.size(), header + "ab"));
    }
    dir.Write(FileName(kind), BytesOf(line));
    const std::string what = Checked(kind, dir);
    ++number;
    if (write) {
      line["want"] = what;
      out << line.dump(-1, ' ', true) << "\n";
    } else {
      EXPECT_EQ(what, line.at("want").get<std::string>()) << "line " << number << ": " << text;
    }
    seen.insert(line.at("family"));
  }
  EXPECT_GE(seen.size(), 28u);
}

std::string Repeated(const std::string& text, int times) {
  std::string out;
  out.reserve(text.size() * static_cast<std::size_t>(times));
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

TEST(FileFamilies, LargeOnesCostLittle) {
  const auto refused = [](const std::string& kind, const std::string& bytes) {
    const TempDir dir;
    dir.Write(FileName(kind), bytes);
    return Checked(kind, dir);
  };
  const auto header = [&](const std::string& text) {
    return refused("safetensors", WithLength(text.size(), text));
  };
  EXPECT_EQ(header("{\"a\":" + std::string(100'000, '[')),
            "f: header:1:9: nested deeper than 4 levels");
  EXPECT_EQ(header("{" + Repeated("\"a\":1,", 10'000'000) + "\"b\":1}"),
            "f: header:1:12582911: more than 4194304 values");
  EXPECT_EQ(header("{\"" + std::string(1 << 20, 'n') + "\":1}").substr(0, 30),
            "f: tensor \"" + std::string(19, 'n'));
  EXPECT_EQ(refused("tokenizer", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[" +
                                     Repeated("\"a b\",", 10'000'000) + "\"a b\"]}}"),
            "tokenizer.json:1:23999982: more than 4000000 values");
  EXPECT_EQ(refused("config", std::string(100'000, '[')),
            "config.json:1:65: nested deeper than 64 levels");
  EXPECT_EQ(refused("template", std::string(1 << 20, ' ')),
            "chat_template.jinja: 1048576 bytes: at most 524288 are read");
  EXPECT_EQ(refused("rows", "{\"prompt\":\"" + std::string(100 << 20, 'x') + "\"}"),
            "f:1: longer than 64 MiB");
  EXPECT_EQ(
      refused("index", "{\"weight_map\":{" + Repeated("\"a\":\"b\",", 2'000'000) + "\"c\":\"\"}}")
          .substr(0, 34),
      "model.safetensors.index.json:1:400");
}

TEST(FileFamilies, LongMetadataIsNoError) {
  const TempDir dir;
  const std::string header = "{\"__metadata__\":{\"k\":\"" + std::string(50 << 20, 'v') + "\"}}";
  const SafetensorsFile file(dir.Write("f", WithLength(header.size(), header)));
  EXPECT_EQ(file.metadata().at("k").size(), std::size_t{50} << 20);
}

TEST(FileFamilies, LongTokensAreBounded) {
  Json json = configs::ReadJsonFile(kGoldens + "tokenizer/tokenizer.json");
  const auto read = [&](std::size_t length) {
    const TempDir dir;
    json["added_tokens"][3] = {{"id", 700}, {"content", std::string(length, 'a')}};
    dir.Write("tokenizer.json", json.dump());
    return Tokenizer(dir.path());
  };
  const std::string refused = Refusal([&] { read(1 << 20); });
  EXPECT_NE(refused.find("added_tokens[3]: content of 1048576 bytes: at most 512 are supported"),
            refused.npos)
      << refused;
  const Tokenizer tokenizer = read(512);
  std::string text;  // at every place almost the token
  while (text.size() < 1 << 20) text += std::string(511, 'a') + "b";
  // Processor time: what else runs doesn't count.
  const std::clock_t began = std::clock();
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text), false), text);
  EXPECT_LT((std::clock() - began) / CLOCKS_PER_SEC, kSanitized ? 30 : 3);
}

TEST(FileFamilies, ShardsThatAreNoFilesAreRefused) {
  for (const char* kind : {"fifo", "folder", "loop", "device", "gone"}) {
    const TempDir dir;
    const std::string path = dir / "s.safetensors";
    const std::string what_kind = kind;
    int made = 0;
    if (what_kind == "fifo") made = ::mkfifo(path.c_str(), 0600);
    if (what_kind == "folder") made = ::mkdir(path.c_str(), 0700);
    if (what_kind == "loop") made = ::symlink("s.safetensors", path.c_str());
    if (what_kind == "device") made = ::symlink("/dev/zero", path.c_str());
    ASSERT_EQ(made, 0);
    dir.Write("model.safetensors.index.json", R"({"weight_map": {"t": "s.safetensors"}})");
    const std::string what = ReadAs("index", dir);
    EXPECT_EQ(what.rfind("s.safetensors: ", 0), 0u) << kind << what;
  }
}

}  // namespace
}  // namespace temper::engine
