// Codes and multipliers against torch's and numpy's (fp8_check.py --golden).
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/probe_fp8.h"
#include "engine/safetensors.h"
#include "tests/engine/temp_dir.h"

namespace temper::engine {
namespace {

void WriteInput(const std::string& path, const std::vector<std::int64_t>& x_shape,
                const std::vector<float>& x, const std::vector<std::int64_t>& w_shape,
                const std::vector<float>& w) {
  SafetensorsWriter writer(path, {{"x", Dtype::kF32, x_shape}, {"w", Dtype::kF32, w_shape}});
  writer.WriteFloats(x);
  writer.WriteFloats(w);
  writer.Close();
}

std::vector<std::byte> Bytes(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo& info = file.tensors().at(name);
  std::vector<std::byte> bytes(info.end - info.begin);
  file.Read(name, bytes);
  return bytes;
}

TEST(ProbeFp8, CodesAndMultipliersAreThoseOfTorchBitForBit) {
  const TempDir dir;
  const SafetensorsFile golden(TEMPER_SOURCE_DIR "/tests/engine/goldens/fp8.safetensors");
  int count = 0;
  for (; golden.Has("x." + std::to_string(count)); ++count) {
    const std::string n = "." + std::to_string(count);
    WriteInput(dir / "in", golden.tensors().at("x" + n).shape, golden.ReadFloats("x" + n),
               golden.tensors().at("w" + n).shape, golden.ReadFloats("w" + n));
    for (const char* recipe : {"fp32", "pow2"}) {
      ProbeFp8(dir / "in", dir / "out",
               recipe[0] == 'p' ? kernels::ScaleRecipe::kPow2 : kernels::ScaleRecipe::kFp32);
      const SafetensorsFile out(dir / "out");
      for (const char* name : {"x_q", "w_q", "x_scale", "w_scale"}) {
        const std::string want = std::string(name) + "." + recipe + n;
        EXPECT_EQ(out.tensors().at(name).shape, golden.tensors().at(want).shape) << want;
        EXPECT_EQ(Bytes(out, name), Bytes(golden, want)) << want;
      }
    }
  }
  EXPECT_EQ(count, 5);
}

TEST(ProbeFp8, ProductsAreThoseOfTheDequantisedMatrices) {
  const TempDir dir;
  const int m = 2, n = 3, k = 150;
  std::vector<float> x(m * k), w(n * k);
  for (int i = 0; i < m * k; ++i) x[i] = std::sin(0.1f * float(i));
  for (int i = 0; i < n * k; ++i) w[i] = std::cos(0.7f * float(i));
  WriteInput(dir / "in", {m, k}, x, {n, k}, w);
  ProbeFp8(dir / "in", dir / "out", kernels::ScaleRecipe::kFp32);
  const SafetensorsFile out(dir / "out");
  const auto codes = [&](const char* name) {
    const std::vector<std::byte> raw = Bytes(out, name);
    std::vector<double> values;
    for (const std::byte b : raw) values.push_back(kernels::DecodeE4m3(std::uint8_t(b)));
    return values;
  };
  const std::vector<double> xq = codes("x_q"), wq = codes("w_q");
  const std::vector<float> xs = out.ReadFloats("x_scale"), ws = out.ReadFloats("w_scale");
  const std::vector<float> both = out.ReadFloats("y_w8a8"), one = out.ReadFloats("y_w8a16");
  for (int r = 0; r < m; ++r) {
    for (int i = 0; i < n; ++i) {
      double exact8 = 0, exact16 = 0;
      for (int j = 0; j < k; ++j) {
        const double weight = wq[i * k + j] * ws[j / 128];
        exact8 += xq[r * k + j] * xs[r * 2 + j / 128] * weight;
        exact16 += x[r * k + j] * weight;
      }
      EXPECT_NEAR(both[r * n + i], exact8, 1e-4);
      EXPECT_NEAR(one[r * n + i], exact16, 1e-4);
      EXPECT_NE(both[r * n + i], one[r * n + i]);
    }
  }
}

TEST(ProbeFp8, WhatCannotBeQuantisedIsNamed) {
  const TempDir dir;
  const auto refused = [&] {
    return Refusal([&] { ProbeFp8(dir / "in", dir / "out", kernels::ScaleRecipe::kFp32); });
  };
  WriteInput(dir / "in", {1, 2}, {1, 2}, {1, 3}, {1, 2, 3});
  EXPECT_EQ(refused(), dir / "in" + ": x has 2 columns, w 3; both must be K");
  WriteInput(dir / "in", {2}, {1, 2}, {1, 2}, {1, 2});
  EXPECT_NE(refused().find("x must be F32 with two dimensions"), std::string::npos);
  WriteInput(dir / "in", {1, 2}, {1, std::nanf("")}, {1, 2}, {1, 2});
  EXPECT_EQ(refused(), dir / "in" + ": x: element 1 is not finite");
  const float most = std::numeric_limits<float>::max();
  WriteInput(dir / "in", {1, 1}, {1}, {1, 1}, {most});
  EXPECT_EQ(refused().find("x"), std::string::npos) << refused();
  SafetensorsWriter writer(dir / "in", {{"x", Dtype::kF32, {1, 1}}});
  writer.WriteFloats(std::vector<float>{1});
  writer.Close();
  EXPECT_NE(refused().find("w is missing"), std::string::npos);
}

}  // namespace
}  // namespace temper::engine
