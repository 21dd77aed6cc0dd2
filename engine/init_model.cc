// `temper init`: random weights that are the same on every machine.
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/json.h"
#include "engine/checkpoint.h"
#include "engine/tokenizer.h"
#include "kernels/ops.h"
#include "kernels/sampling.h"

namespace temper::engine {
namespace {

// FNV-1a: the tensor's place in the generator's counter.
std::uint64_t HashName(const std::string& name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return hash;
}

// Standard normals by Marsaglia's polar method on Philox: key = seed, counter = (block, element,
// name low, name high). Each element is drawn on its own from its blocks 0, 1, ... until a point
// falls inside the unit circle; only +, *, / and sqrt (IEEE) and our own logarithm are used, so the
// bits do not depend on the machine. Elements past 2^32 take the upper half of the block number.
class Normal {
 public:
  Normal(std::uint64_t seed, const std::string& name)
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
        name_(HashName(name)) {}

  double At(std::uint64_t element) const {
    for (std::uint32_t block = 0;; ++block) {
      const auto x =
          kernels::Philox({block ^ static_cast<std::uint32_t>(element >> 32) << 16,
                           static_cast<std::uint32_t>(element), static_cast<std::uint32_t>(name_),
                           static_cast<std::uint32_t>(name_ >> 32)},
                          key_);
      for (int pair = 0; pair < 4; pair += 2) {
        const double u = Uniform(x[pair]), v = Uniform(x[pair + 1]);
        const double s = u * u + v * v;
        if (s >= 1.0) continue;
        return u * std::sqrt(-2.0 * kernels::LogDouble(s) / s);
      }
    }
  }

 private:
  // Odd multiples of 2^-32 in (-1, 1): never 0.
  static double Uniform(std::uint32_t x) { return (2.0 * x + 1.0) * 0x1p-32 - 1.0; }

  std::array<std::uint32_t, 2> key_;
  std::uint64_t name_;
};

void Fill(const TensorSpec& spec, std::uint64_t seed, double range, std::vector<float>* values) {
  values->assign(static_cast<std::size_t>(spec.count()), 0.0f);
  if (spec.kind == TensorSpec::Kind::kNorm) {
    std::fill(values->begin(), values->end(), 1.0f);
  } else if (spec.kind != TensorSpec::Kind::kRouterBias) {
    const Normal normal(seed, spec.name);
    for (std::size_t i = 0; i < values->size(); ++i) {
      (*values)[i] = static_cast<float>(range * normal.At(i));
    }
  }
}

// A folder that becomes `target` by one rename, or vanishes.
class NewFolder {
 public:
  explicit NewFolder(std::string target)
      : target_(std::move(target)), temporary_(target_ + ".tmp-" + std::to_string(::getpid())) {
    if (configs::Exists(target_)) throw UserError(target_ + ": exists already: choose another");
    if (::mkdir(temporary_.c_str(), 0777) != 0) {
      const std::string message =
          temporary_ + ": cannot be created: " + std::generic_category().message(errno);
      if (errno == ENOENT || errno == ENOTDIR || errno == EACCES) throw UserError(message);
      throw MachineError(message);
    }
  }
  ~NewFolder() {
    if (temporary_.empty()) return;
    std::error_code ignored;
    std::filesystem::remove_all(temporary_, ignored);
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::string& path() const { return temporary_; }
  void Commit() {
    configs::SyncFolder(temporary_);
    if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE) !=
        0) {
      const std::string message =
          target_ + ": cannot be put in place: " + std::generic_category().message(errno);
      if (errno == EEXIST) throw UserError(message);
      throw MachineError(message);
    }
    temporary_.clear();
    const std::string parent = std::filesystem::path(target_).parent_path().string();
    configs::SyncFolder(parent.empty() ? "." : parent);
  }

 private:
  std::string target_, temporary_;
};

std::string WithoutTrailingSlash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

}  // namespace

void InitModel(const std::string& arch_file, const std::string& tokenizer_dir, std::uint64_t seed,
               Dtype dtype, const std::string& out) {
  const Json json = configs::ReadJsonFile(arch_file);
  const ModelConfig config = ParseModelConfig(json, arch_file);
  const double range = json.contains("initializer_range")
                           ? configs::GetNumber(json.at("initializer_range"),
                                                arch_file + ": initializer_range", 0, 100)
                           : 0.02;
  const Tokenizer tokenizer(tokenizer_dir);
  if (tokenizer.size() > config.vocab_size) {
    throw UserError(arch_file + ": vocab_size " + std::to_string(config.vocab_size) +
                    " is smaller than the tokenizer's " + std::to_string(tokenizer.size()) +
                    " ids (" + tokenizer_dir + ")");
  }
  NewFolder folder(WithoutTrailingSlash(out));
  std::vector<float> values;
  WriteCheckpoint(folder.path(), config, dtype, tokenizer_dir, [&](const TensorSpec& spec) {
    Fill(spec, seed, range, &values);
    return std::span<const float>(values);
  });
  folder.Commit();
}

}  // namespace temper::engine
