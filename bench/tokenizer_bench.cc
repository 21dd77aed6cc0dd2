// How fast a tokenizer loads and encodes: tokenizer_bench DIR FILE.txt [--runs 5]. One thread; the
// best of the runs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "configs/files.h"
#include "engine/tokenizer.h"

int main(int argc, char** argv) {
  using namespace temper;
  using Clock = std::chrono::steady_clock;
  if (argc < 3) {
    std::fprintf(stderr, "tokenizer_bench DIR FILE.txt [--runs 5]\n");
    return 2;
  }
  try {
    const int runs = argc > 4 ? std::max(1, std::atoi(argv[4])) : 5;
    const auto seconds = [](Clock::time_point since) {
      return std::chrono::duration<double>(Clock::now() - since).count();
    };
    auto began = Clock::now();
    const engine::Tokenizer tokenizer(argv[1]);
    const double load = seconds(began);
    const std::string text = configs::ReadWholeFile(argv[2], std::uint64_t{1} << 30);
    double best = 1e9;
    std::size_t tokens = 0;
    for (int i = 0; i < runs; ++i) {
      began = Clock::now();
      tokens = tokenizer.Encode(text).size();
      best = std::min(best, seconds(began));
    }
    std::printf("load %.3f s; %zu bytes, %zu tokens, %.1f MB/s\n", load, text.size(), tokens,
                double(text.size()) / best / 1e6);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tokenizer_bench: %s\n", error.what());
    return 2;
  }
  return 0;
}
