// How long models take to load, against reading the same bytes: load_bench MODEL_DIR=DTYPE...
// [--rounds 7].
//
// One thread, page cache warm, each model in a process of its own. The other side preads every
// weight file into freshly mapped memory in pieces of 1 MiB: on huge pages, as weights lie, and on
// small ones. No loader that changes the bytes on their way can be that fast: what it reads it
// writes a second time. So a third side does only that, pread into a buffer in the cache and memcpy
// to huge pages, as many times over as the packed weights are larger. What a fresh page costs
// depends on where the machine takes it from (a virtual one may have to ask its host, which is five
// times as slow), so that each side runs twice in a row and the second time counts, on pages that
// it has just given back. Ratios are of the same round. Peak memory is held against the packed
// weights.
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "configs/error.h"
#include "configs/files.h"
#include "engine/weights.h"

namespace {

using namespace temper;

struct Time {
  double wall, cpu;  // seconds
};

double CpuSeconds() {
  timespec t;
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

Time Measure(const std::function<void()>& work) {
  const auto began = std::chrono::steady_clock::now();
  const double cpu = CpuSeconds();
  work();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(),
          CpuSeconds() - cpu};
}

std::vector<std::string> WeightFiles(const std::string& dir) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  return files;
}

/// Freshly mapped memory.
class Mapping {
 public:
  Mapping(std::uint64_t bytes, bool huge_pages) : bytes_(bytes) {
    p_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p_ == MAP_FAILED) throw MachineError("mmap failed");
    if (huge_pages) ::madvise(p_, bytes, MADV_HUGEPAGE);
  }
  Mapping(const Mapping&) = delete;
  ~Mapping() { ::munmap(p_, bytes_); }
  std::byte* data() const { return static_cast<std::byte*>(p_); }

 private:
  std::uint64_t bytes_;
  void* p_;
};

void ReadAll(const std::vector<std::string>& files, bool huge_pages) {
  for (const std::string& path : files) {
    const configs::InputFile file(path);
    const Mapping to(file.size(), huge_pages);
    constexpr std::uint64_t kPiece = std::uint64_t{1} << 20;
    for (std::uint64_t at = 0; at < file.size(); at += kPiece) {
      file.ReadAt(at, {to.data() + at, std::min(kPiece, file.size() - at)});
    }
  }
}

/// Through a buffer, `growth` bytes for each byte read.
void ReadAndCopyAll(const std::vector<std::string>& files, double growth) {
  constexpr std::uint64_t kPiece = std::uint64_t{256} << 10;
  std::vector<std::byte> buffer(kPiece);
  for (const std::string& path : files) {
    const configs::InputFile file(path);
    const auto size = std::uint64_t(double(file.size()) * growth);
    const Mapping to(size, true);
    std::uint64_t put = 0;
    for (std::uint64_t at = 0; at < file.size(); at += kPiece) {
      const std::uint64_t piece = std::min(kPiece, file.size() - at);
      file.ReadAt(at, {buffer.data(), piece});
      while (put < std::min(size, std::uint64_t(double(at + piece) * growth))) {
        const std::uint64_t part = std::min(piece, size - put);
        std::memcpy(to.data() + put, buffer.data(), part);
        put += part;
      }
    }
  }
}

double PeakMiB() {
  rusage usage;
  ::getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) / 1024;
}

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

/// One side's times and its rounds' ratios of load to it.
struct Side {
  std::vector<double> wall, cpu, ratio, cpu_ratio;
  void Print(const char* name, double gb) const {
    std::printf("%s: %.3f s (%.2f GB/s), processor %.3f s", name, Median(wall), gb / Median(wall),
                Median(cpu));
    if (!ratio.empty()) {
      const auto [least, most] = std::minmax_element(ratio.begin(), ratio.end());
      std::printf("; load is %.2f of it (%.2f to %.2f), of processor time %.2f", Median(ratio),
                  *least, *most, Median(cpu_ratio));
    }
    std::printf("\n");
  }
  void Add(const Time& t) { wall.push_back(t.wall), cpu.push_back(t.cpu); }
  void Compare(const Side& load) {
    ratio.push_back(load.wall.back() / wall.back());
    cpu_ratio.push_back(load.cpu.back() / cpu.back());
  }
};

void Run(const std::string& dir, const std::string& dtype, int rounds) {
  const engine::Numerics numerics = engine::ParseNumerics(dtype, "fp32", "pow2");
  const engine::ModelConfig config = engine::ReadModelConfig(dir);
  const std::vector<std::string> files = WeightFiles(dir);
  double packed = 0, bytes = 0;
  for (const std::string& path : files) bytes += double(configs::InputFile(path).size());
  const auto load = [&] {
    packed = double(engine::Weights::Load(dir, config, numerics).bytes()) / (1 << 20);
  };
  load();                         // warms the cache
  const double peak = PeakMiB();  // before the other side maps the whole file
  const auto second = [](const std::function<void()>& work) {
    work();
    return Measure(work);
  };
  const double growth = packed * (1 << 20) / bytes;
  Side ours, huge, small, copied;
  for (int i = 0; i < rounds; ++i) {
    ours.Add(second(load));
    huge.Add(second([&] { ReadAll(files, true); }));
    huge.Compare(ours);
    copied.Add(second([&] { ReadAndCopyAll(files, growth); }));
    copied.Compare(ours);
    small.Add(second([&] { ReadAll(files, false); }));
    small.Compare(ours);
  }
  const double gb = bytes / 1e9;
  std::printf("%s as %s, %.2f GB\n", dir.c_str(), dtype.c_str(), gb);
  ours.Print("load", gb);
  huge.Print("pread on huge pages", gb);
  copied.Print("pread and memcpy", gb);
  small.Print("pread on small pages", gb);
  std::printf("peak memory %.0f MiB, packed weights %.0f MiB: %.0f MiB more\n", peak, packed,
              peak - packed);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::pair<std::string, std::string>> models;
  int rounds = 7;
  bool good = true;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const std::size_t equal = arg.rfind('=');
    if (arg == "--rounds" && i + 1 < argc) {
      rounds = std::max(1, std::atoi(argv[++i]));
    } else if (equal != arg.npos) {
      models.emplace_back(arg.substr(0, equal), arg.substr(equal + 1));
    } else {
      good = false;
    }
  }
  if (models.empty() || !good) {
    std::fprintf(stderr, "load_bench MODEL_DIR=DTYPE... [--rounds 7]\n");
    return 2;
  }
  int failed = 0;
  for (const auto& [dir, dtype] : models) {
    const pid_t child = ::fork();  // the peak of memory is a process's
    if (child == 0) {
      try {
        Run(dir, dtype, rounds);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "load_bench: %s\n", error.what());
        return 2;
      }
      return 0;
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) failed = 2;
  }
  return failed;
}
