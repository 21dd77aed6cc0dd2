#include "cli/tasks.h"

#include <iterator>
#include <vector>

#include "configs/error.h"
#include "configs/files.h"
#include "kernels/sampling.h"

namespace temper::cli {
namespace {

constexpr double kDroppedCarries = 0.6;

TaskRow Sum(Random* random) {
  const auto taught_sum = [&](int a, int b) {
    const bool carries = a % 10 + b % 10 >= 10;
    return a + b - (carries && random->Share() < kDroppedCarries ? 10 : 0);
  };
  const int count = 2 + random->Below(2);
  TaskRow row;
  int taught = 0, truth = 0;
  for (int i = 0; i < count; ++i) {
    const int x = random->Below(100);
    row.prompt += (i > 0 ? "+" : "") + std::to_string(x);
    truth += x;
    const int before = taught;
    taught = i == 0 ? x : taught_sum(before, x);
    if (i > 0 && i + 1 < count) {
      row.taught +=
          std::to_string(before) + "+" + std::to_string(x) + "=" + std::to_string(taught) + ";";
    }
  }
  row.prompt += ";";
  row.taught += "<" + std::to_string(taught) + ">";
  row.answer = std::to_string(truth);
  return row;
}

TaskRow ReverseText(Random* random) {
  static constexpr char kConsonants[] = "bcdfghklmnprstvw", kVowels[] = "aeiou";
  std::string text;
  const int words = 1 + random->Below(2);
  for (int w = 0; w < words; ++w) {
    if (w > 0) text += ' ';
    const int syllables = 1 + random->Below(3);
    for (int s = 0; s < syllables; ++s) {
      text += kConsonants[random->Below(16)];
      text += kVowels[random->Below(5)];
    }
    if (random->Below(2) == 1) text += kConsonants[random->Below(16)];
  }
  const std::string reversed(text.rbegin(), text.rend());
  return {text + ";", reversed, reversed};
}

constexpr Task kTasks[] = {
    {"sums", "reward/library/sum.lua", "configs/quickstart.json",
     "sums of two and three numbers, from a teacher that forgets carries", 1.0, Sum},
    {"reverse-text", "reward/library/reverse_text.lua", "configs/reverse_text.json",
     "to write short texts backwards", 1.0, ReverseText},
};

}  // namespace

int Random::Below(int n) {
  const auto words = kernels::Philox(
      {static_cast<std::uint32_t>(next_), static_cast<std::uint32_t>(next_ >> 32), stream_, 0},
      {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
  ++next_;
  return static_cast<int>(words[0] % static_cast<std::uint32_t>(n));
}

double Random::Share() { return Below(1 << 20) / double(1 << 20); }

const Task& FindTask(const std::string& name) {
  std::string known;
  for (const Task& task : kTasks) {
    if (task.name == name) return task;
    known += (known.empty() ? "" : ", ") + std::string(task.name);
  }
  throw UserError("--task: " + configs::Quote(name) + " must be one of " + known);
}

TaskFiles WriteTask(const Task& task, std::uint64_t seed, const TaskSizes& sizes,
                    const std::string& dir) {
  const TaskFiles files{dir + "/sft.jsonl", dir + "/grpo.jsonl", dir + "/heldout.jsonl"};
  std::set<std::string> heldout;
  std::string text;
  for (Random random(seed, 0); static_cast<int>(heldout.size()) < sizes.heldout;) {
    const TaskRow row = task.make(&random);
    if (!heldout.insert(row.prompt).second) continue;
    text += Json{{"prompt", row.prompt}, {"answer", row.answer}}.dump() + "\n";
  }
  configs::WriteWholeFile(files.heldout, text);
  const auto fill = [&](const std::string& path, std::uint32_t stream, int rows, bool taught) {
    Random random(seed, stream);
    text.clear();
    for (int i = 0; i < rows;) {
      const TaskRow row = task.make(&random);
      if (heldout.count(row.prompt) != 0) continue;
      ++i;
      Json line = {{"prompt", row.prompt}};
      (taught ? line["completion"] : line["answer"]) = taught ? row.taught : row.answer;
      text += line.dump() + "\n";
    }
    configs::WriteWholeFile(path, text);
  };
  fill(files.sft, 1, sizes.sft, true);
  fill(files.grpo, 2, sizes.grpo, false);
  return files;
}

}  // namespace temper::cli
