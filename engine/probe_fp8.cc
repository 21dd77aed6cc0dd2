#include "engine/probe_fp8.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "configs/error.h"
#include "engine/safetensors.h"
#include "kernels/linear.h"

namespace temper::engine {
namespace {

using kernels::kBlock;

int Blocks(int n) { return (n + kBlock - 1) / kBlock; }

struct Matrix {
  std::vector<float> values;
  int rows = 0, columns = 0;
};

Matrix Read(const SafetensorsFile& file, const std::string& name) {
  const std::string where = file.path() + ": " + name;
  if (!file.Has(name))
    throw UserError(where + " is missing: the file must hold x [M, K] and w [N, K]");
  const TensorInfo& info = file.tensors().at(name);
  constexpr std::int64_t kMost = std::int64_t{1} << 24;
  const bool shaped =
      info.shape.size() == 2 && std::all_of(info.shape.begin(), info.shape.end(),
                                            [](std::int64_t d) { return d >= 1 && d <= kMost; });
  if (info.dtype != Dtype::kF32 || !shaped) {
    throw UserError(where + " must be F32 with two dimensions in [1, " + std::to_string(kMost) +
                    "]");
  }
  Matrix m{file.ReadFloats(name), int(info.shape[0]), int(info.shape[1])};
  for (std::size_t i = 0; i < m.values.size(); ++i) {
    if (!std::isfinite(m.values[i]))
      throw UserError(where + ": element " + std::to_string(i) + " is not finite");
  }
  return m;
}

}  // namespace

void ProbeFp8(const std::string& in, const std::string& out, kernels::ScaleRecipe recipe) {
  const SafetensorsFile file(in);
  const Matrix x = Read(file, "x"), w = Read(file, "w");
  const int m = x.rows, n = w.rows, k = x.columns;
  if (w.columns != k) {
    throw UserError(in + ": x has " + std::to_string(k) + " columns, w " +
                    std::to_string(w.columns) + "; both must be K");
  }
  kernels::ThreadPool pool(1);
  const int blocks = Blocks(k);
  std::vector<float> x_values(x.values.size()), x_scale(std::size_t(m) * blocks);
  kernels::QuantizeActivations(x.values.data(), k, m, k, recipe, x_values.data(), k, x_scale.data(),
                               pool);
  std::vector<std::uint8_t> x_codes(x.values.size()), w_codes(w.values.size());
  kernels::EncodeE4m3(x_values.data(), std::int64_t(x_values.size()), 1.0f, x_codes.data());
  std::vector<float> w_scale(std::size_t(Blocks(n)) * blocks);
  kernels::QuantizeWeight(w.values.data(), k, n, k, recipe, w_codes.data(), k, w_scale.data(),
                          pool);
  const std::string bad = kernels::CheckFp8Weight(w_codes.data(), k, n, k, w_scale.data());
  if (!bad.empty()) throw UserError(in + ": w: " + bad);

  std::vector<std::uint8_t> packed(kernels::PackedSize(n, k));
  kernels::PackFp8(w_codes.data(), k, n, k, packed.data());
  std::vector<float> shifted = w_scale;
  for (float& s : shifted) s *= kernels::kFp8Shift;
  const kernels::LinearWeight weight{packed.data(), n, k, kernels::WeightType::kFp8,
                                     shifted.data()};
  std::vector<float> w8a8(std::size_t(m) * n), w8a16(w8a8.size());
  const kernels::LinearItem item{weight, x_values.data(), k,     m, w8a8.data(),
                                 n,      x_scale.data(),  blocks};
  kernels::LinearMany(&item, 1, pool);
  kernels::Linear(weight, x.values.data(), k, m, w8a16.data(), n, pool);

  SafetensorsWriter writer(out, {{"x_q", Dtype::kF8E4m3, {m, k}},
                                 {"w_q", Dtype::kF8E4m3, {n, k}},
                                 {"x_scale", Dtype::kF32, {m, blocks}},
                                 {"w_scale", Dtype::kF32, {Blocks(n), blocks}},
                                 {"y_w8a8", Dtype::kF32, {m, n}},
                                 {"y_w8a16", Dtype::kF32, {m, n}}});
  writer.Write(std::as_bytes(std::span(x_codes)));
  writer.Write(std::as_bytes(std::span(w_codes)));
  for (const std::vector<float>* values : {&x_scale, &w_scale, &w8a8, &w8a16})
    writer.WriteFloats(*values);
  writer.Close();
}

}  // namespace temper::engine
