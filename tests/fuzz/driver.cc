// A main for fuzz targets where libFuzzer is not: replays a corpus, then mutates it.
//   fuzz_X [--runs N] [--seconds S] [--seed N] FOLDER...
// Every input that was not in the corpus is a function of the seed and its number. The one that
// ends the process is written to ./fuzz_X.input.
#include <sanitizer/common_interface_defs.h>
#include <signal.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace {

constexpr std::size_t kMaxInput = 1 << 16;

class Mutator {
 public:
  Mutator(std::vector<std::string> corpus, std::uint64_t seed)
      : corpus_(std::move(corpus)), random_(seed) {
    for (const char* const* word = kFuzzWords; *word; ++word) words_.emplace_back(*word);
    for (const char* word : {"0",
                             "-1",
                             "1e999",
                             "18446744073709551616",
                             "9223372036854775807",
                             "null",
                             "true",
                             "\"\"",
                             "[]",
                             "{}",
                             "[[[[[[[[",
                             "\xff",
                             "\xED\xA0\x80",
                             "\\ud800",
                             "\xEF\xBB\xBF",
                             "\n",
                             "\r\n",
                             "\\u0000",
                             "é",
                             "\xF0\x9F\x98\x80"}) {
      words_.emplace_back(word);
    }
    words_.emplace_back(1, '\0');
  }

  std::string Next() {
    std::string text = Pick(corpus_);
    for (std::size_t n = 1 + Below(6); n > 0; --n) Change(&text);
    if (text.size() > kMaxInput) text.resize(kMaxInput);
    return text;
  }

 private:
  std::size_t Below(std::size_t n) { return n == 0 ? 0 : random_() % n; }
  const std::string& Pick(const std::vector<std::string>& from) { return from[Below(from.size())]; }

  void Change(std::string* text) {
    const std::size_t at = Below(text->size() + 1);
    const std::size_t length = Below(std::min<std::size_t>(text->size() - at, 40) + 1);
    switch (Below(8)) {
      case 0:
        if (at < text->size()) (*text)[at] = static_cast<char>((*text)[at] ^ (1 << Below(8)));
        break;
      case 1:
        if (at < text->size()) (*text)[at] = static_cast<char>(Below(256));
        break;
      case 2:
        text->erase(at, length);
        break;
      case 3:
        text->insert(at, text->substr(at, length));
        break;
      case 4:
        text->insert(at, Pick(words_));
        break;
      case 5:
        text->replace(at, length, Pick(words_));
        break;
      case 6: {
        const std::string& other = Pick(corpus_);
        const std::size_t from = Below(other.size() + 1);
        text->replace(at, length, other.substr(from, Below(60)));
        break;
      }
      default:
        Number(text, at);
    }
  }

  // Another number where the next one stands.
  void Number(std::string* text, std::size_t at) {
    const std::size_t begin = text->find_first_of("0123456789", at);
    if (begin == text->npos) return;
    const std::size_t end = std::min(text->find_first_not_of("0123456789", begin), text->size());
    const std::uint64_t number = Below(3) == 0 ? random_() : Below(300);
    text->replace(begin, end - begin, std::to_string(number));
  }

  std::vector<std::string> corpus_, words_;
  std::mt19937_64 random_;
};

std::vector<std::string> ReadCorpus(const std::vector<std::string>& folders) {
  std::vector<std::filesystem::path> files;
  for (const std::string& folder : folders) {
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> corpus;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return corpus;
}

std::string kept;                      // where the input goes that ends the process
const std::string* running = nullptr;  // the input

void Keep() {
  if (!running) return;
  std::ofstream(kept, std::ios::binary | std::ios::trunc) << *running;
  std::fprintf(stderr, "the input is in %s\n", kept.c_str());
}

void KeepAborted(int) {
  Keep();
  ::signal(SIGABRT, SIG_DFL);
  std::abort();
}

void Run(const std::string& input) {
  running = &input;
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  running = nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t runs = 0, seed = 1;
  double seconds = 0;
  std::vector<std::string> folders;
  for (int i = 1; i < argc; ++i) {
    const bool more = i + 1 < argc;
    if (more && !std::strcmp(argv[i], "--runs")) {
      runs = std::strtoull(argv[++i], nullptr, 10);
    } else if (more && !std::strcmp(argv[i], "--seconds")) {
      seconds = std::strtod(argv[++i], nullptr);
    } else if (more && !std::strcmp(argv[i], "--seed")) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else {
      folders.emplace_back(argv[i]);
    }
  }
  const std::vector<std::string> corpus = ReadCorpus(folders);
  if (corpus.empty()) {
    std::fprintf(stderr, "usage: %s [--runs N] [--seconds S] [--seed N] FOLDER...\n", argv[0]);
    return 2;
  }
  const auto began = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  };
  kept = std::filesystem::path(argv[0]).filename().string() + ".input";
  __sanitizer_set_death_callback(Keep);
  ::signal(SIGABRT, KeepAborted);
  for (const std::string& input : corpus) Run(input);
  Mutator mutator(corpus, seed);
  std::uint64_t done = 0;
  double slowest = 0;
  for (; done < runs || elapsed() < seconds; ++done) {
    const std::string input = mutator.Next();
    const double before = elapsed();
    Run(input);
    slowest = std::max(slowest, elapsed() - before);
  }
  std::printf("%s: %zu of the corpus, %llu mutated, %.1f s, slowest %.3f s\n", argv[0],
              corpus.size(), static_cast<unsigned long long>(done), elapsed(), slowest);
  return 0;
}
