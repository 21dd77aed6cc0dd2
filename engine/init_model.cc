// `temper init`: random weights that are the same on every machine.
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/json.h"
#include "engine/checkpoint.h"
#include "engine/new_folder.h"
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

// Rows [first, first + rows) of a tensor.
void Fill(const TensorSpec& spec, std::uint64_t seed, double range, std::int64_t first,
          std::int64_t rows, kernels::ThreadPool& pool, std::vector<float>* values) {
  const std::int64_t k = Columns(spec), count = rows * k;
  values->assign(static_cast<std::size_t>(count), 0.0f);
  if (spec.kind == TensorSpec::Kind::kNorm) {
    std::fill(values->begin(), values->end(), 1.0f);
  } else if (spec.kind != TensorSpec::Kind::kRouterBias && spec.kind != TensorSpec::Kind::kBias) {
    const Normal normal(seed, spec.name);
    constexpr std::int64_t kPart = 4096;
    pool.Run(int((count + kPart - 1) / kPart), [&](int part) {
      const std::int64_t end = std::min(count, (part + 1) * kPart);
      for (std::int64_t i = part * kPart; i < end; ++i) {
        (*values)[i] = static_cast<float>(range * normal.At(std::uint64_t(first * k + i)));
      }
    });
  }
}

}  // namespace

void InitModel(const std::string& arch_file, const std::string& tokenizer_dir, std::uint64_t seed,
               const Storage& storage, const std::string& out, int threads,
               std::uint64_t shard_bytes, const StoreProgress& progress) {
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
  NewFolder folder(out);
  kernels::ThreadPool pool(threads);
  std::vector<float> values;
  const RowSource random = [&](const TensorSpec& spec, std::int64_t first, std::int64_t rows) {
    Fill(spec, seed, range, first, rows, pool, &values);
    RowData data;
    data.first = first;
    data.rows = rows;
    data.values = values;
    return data;
  };
  WriteCheckpoint(folder.path(), config, storage, tokenizer_dir,
                  Reporting(config, random, progress), shard_bytes);
  folder.Commit();
}

}  // namespace temper::engine
