// How fast a tokenizer loads and encodes: tokenizer_bench DIR FILE.txt... [--runs 5]. One thread by
// its processor time: of loading the median, of encoding the best of the runs.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/files.h"
#include "engine/tokenizer.h"

namespace {

double ThreadSeconds() {
  timespec t;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

void Encode(const temper::engine::Tokenizer& tokenizer, const std::string& path, int runs) {
  const std::string text = temper::configs::ReadWholeFile(path, std::uint64_t{1} << 30);
  double best = 1e9;
  std::size_t tokens = 0;
  for (int i = 0; i < runs; ++i) {
    const double began = ThreadSeconds();
    tokens = tokenizer.Encode(text).size();
    best = std::min(best, ThreadSeconds() - began);
  }
  std::printf("%s: %zu bytes, %zu tokens, %.1f MB/s\n",
              std::filesystem::path(path).filename().c_str(), text.size(), tokens,
              double(text.size()) / best / 1e6);
}

}  // namespace

int main(int argc, char** argv) {
  int runs = 5;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--runs" && i + 1 < argc) {
      runs = std::max(1, std::atoi(argv[++i]));
    } else {
      paths.push_back(argv[i]);
    }
  }
  if (paths.size() < 2) {
    std::fprintf(stderr, "tokenizer_bench DIR FILE.txt... [--runs 5]\n");
    return 2;
  }
  try {
    std::optional<temper::engine::Tokenizer> tokenizer;
    std::vector<double> loads;
    for (int i = 0; i < std::min(runs, 5); ++i) {
      tokenizer.reset();
      const double began = ThreadSeconds();
      tokenizer.emplace(paths[0]);
      loads.push_back(ThreadSeconds() - began);
    }
    std::sort(loads.begin(), loads.end());
    std::printf("load: median %.3f s, slowest %.3f s\n", loads[loads.size() / 2], loads.back());
    for (std::size_t i = 1; i < paths.size(); ++i) Encode(*tokenizer, paths[i], runs);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tokenizer_bench: %s\n", error.what());
    return 2;
  }
  return 0;
}
