#include "engine/safetensors.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "engine/float_bits.h"
#include "kernels/bf16.h"
#include "kernels/f16.h"
#include "tests/engine/temp_dir.h"

namespace temper::engine {
namespace {

std::string Bytes(const std::string& header, std::size_t data, std::uint64_t length) {
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + header + std::string(data, 'd');
}
std::string Bytes(const std::string& header, std::size_t data) {
  return Bytes(header, data, header.size());
}
std::string One(const std::string& fields, std::size_t data) {
  return Bytes("{\"x\":{" + fields + "}}", data);
}

std::string Refused(const TempDir& dir, const std::string& bytes) {
  const std::string path = dir.Write("f", bytes);
  std::string what = Refusal([&] { SafetensorsFile file(path); });
  if (what.compare(0, path.size() + 2, path + ": ") == 0) what.erase(0, path.size() + 2);
  return what;
}

TEST(Safetensors, RefusesEveryMalformedFileByName) {
  const TempDir dir;
  const std::string f32 = "\"dtype\":\"F32\",";
  const std::string two = ",\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":";
  const std::string x2 = "{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "0 bytes: a safetensors file has at least 8"},
      {"1234567", "7 bytes: a safetensors file has at least 8"},
      {Bytes("", 0), "header must start with '{'"},
      {Bytes("{}", 0, ~std::uint64_t{0}),
       "header of 18446744073709551615 bytes: at most 100000000; this may not be a safetensors "
       "file"},
      {Bytes("{}", 0, 3), "header of 3 bytes in a file of 10: the file is cut short"},
      {Bytes("{}", 0, 100'000'001),
       "header of 100000001 bytes: at most 100000000; this may not be a safetensors file"},
      {Bytes(" {}", 0), "header must start with '{'"},
      {Bytes("\xEF\xBB\xBF{}", 0), "header must start with '{'"},
      {Bytes(std::string("{}\0", 3), 0), "header:1:3: a NUL byte"},
      {Bytes("{}x", 0), "header:1:3: syntax error while parsing value - invalid literal"},
      {Bytes("{\"\xFF\":1}", 0),
       "header:1:3: syntax error while parsing object key - invalid string: ill-formed UTF-8 byte"},
      {Bytes("{\"a\":[[[[[[", 0), "header:1:9: nested deeper than 4 levels"},
      {Bytes("{\"x\":{},\"x\":{}}", 0), "header:1:11: duplicate key \"x\""},
      {Bytes("{\"a\":{},\"\\u0061\":{}}", 0), "header:1:16: duplicate key \"a\""},
      {One(f32 + "\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]", 4),
       "header:1:39: duplicate key \"shape\""},
      {Bytes("{\"x\":3}", 0), "tensor \"x\": must be an object"},
      {One("\"shape\":[1],\"data_offsets\":[0,4]", 4), "tensor \"x\": dtype is missing"},
      {One(f32 + "\"data_offsets\":[0,4]", 4), "tensor \"x\": shape is missing"},
      {One(f32 + "\"shape\":[1]", 4), "tensor \"x\": data_offsets is missing"},
      {One("\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]", 4),
       "tensor \"x\": dtype \"f32\" is not supported"},
      {One("\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,4]", 4),
       "tensor \"x\": dtype \"F4\" is not supported"},
      {One("\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]", 4),
       "tensor \"x\": dtype 7 is not supported"},
      {One(f32 + "\"shape\":1,\"data_offsets\":[0,4]", 4), "tensor \"x\": shape must be a list"},
      {One(f32 + "\"shape\":[-1],\"data_offsets\":[0,4]", 4),
       "tensor \"x\": shape: -1 must be an integer in [0, 9223372036854775807]"},
      {One(f32 + "\"shape\":[-0],\"data_offsets\":[0,0]", 0),
       "tensor \"x\": shape: -0 must be an integer in [0, 9223372036854775807]"},
      {One(f32 + "\"shape\":[1],\"data_offsets\":[-0,4]", 4),
       "tensor \"x\": data_offsets: -0 must be an integer in [0, 9223372036854775807]"},
      {One(f32 + "\"shape\":[1.0],\"data_offsets\":[0,4]", 4),
       "tensor \"x\": shape: 1.0 must be an integer in [0, 9223372036854775807]"},
      {One(f32 + "\"shape\":[\"1\"],\"data_offsets\":[0,4]", 4),
       "tensor \"x\": shape: \"1\" must be an integer in [0, 9223372036854775807]"},
      {One(f32 + "\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]", 0),
       "tensor \"x\": shape [4294967296,4294967296] overflows 64 bits"},
      {One(f32 + "\"shape\":[4611686018427387904],\"data_offsets\":[0,0]", 0),
       "tensor \"x\": shape [4611686018427387904] overflows 64 bits"},
      {One(f32 + "\"shape\":[1],\"data_offsets\":[0]", 4),
       "tensor \"x\": data_offsets must be [begin, end]"},
      {One(f32 + "\"shape\":[1],\"data_offsets\":[0,4,8]", 4),
       "tensor \"x\": data_offsets must be [begin, end]"},
      {One(f32 + "\"shape\":[1],\"data_offsets\":[-4,0]", 4),
       "tensor \"x\": data_offsets: -4 must be an integer in [0, 9223372036854775807]"},
      {One(f32 + "\"shape\":[1],\"data_offsets\":[0,4.0]", 4),
       "tensor \"x\": data_offsets: 4.0 must be an integer in [0, 9223372036854775807]"},
      {One(f32 + "\"shape\":[1],\"data_offsets\":[0,18446744073709551616]", 4),
       "tensor \"x\": data_offsets: 1.8446744073709552e+19 must be an integer in [0, "
       "9223372036854775807]"},
      {One(f32 + "\"shape\":[1],\"data_offsets\":[4,0]", 4),
       "tensor \"x\": data_offsets [4, 0] run backwards"},
      {One(f32 + "\"shape\":[2],\"data_offsets\":[0,8]", 4),
       "tensor \"x\": ends at byte 8 of the data, which has 4"},
      {One(f32 + "\"shape\":[2],\"data_offsets\":[0,4]", 4),
       "tensor \"x\": data_offsets span 4 bytes, dtype and shape need 8"},
      {One(f32 + "\"shape\":[1],\"data_offsets\":[4,8]", 8),
       "tensor \"x\": begins at byte 4 of the data: a hole after byte 0"},
      {Bytes(x2 + two + "[1,3]}}", 3),
       "tensor \"y\": begins at byte 1 of the data, inside another tensor"},
      {Bytes(x2 + two + "[3,5]}}", 5),
       "tensor \"y\": begins at byte 3 of the data: a hole after byte 2"},
      {Bytes(x2 + "}", 7), "5 bytes behind the last tensor belong to none"},
      {Bytes("{}", 1), "1 bytes behind the last tensor belong to none"},
      {Bytes("{\"__metadata__\":[]}", 0), "__metadata__ must be an object of strings"},
      {Bytes("{\"__metadata__\":{\"k\":1}}", 0), "__metadata__: \"k\" must be a string"},
      {"PK\x03\x04 and more of a zip",
       "is a ZIP archive, as PyTorch writes .bin and .pt: convert it to safetensors"},
  };
  for (const auto& [bytes, want] : cases) {
    const std::string got = Refused(dir, bytes);
    EXPECT_EQ(got, want);
  }
  std::string rank;
  for (int i = 0; i < 65; ++i) rank += i ? ",1" : "1";
  EXPECT_EQ(Refused(dir, One(f32 + "\"shape\":[" + rank + "],\"data_offsets\":[0,4]", 4)),
            "tensor \"x\": shape has 65 dimensions: at most 64");
}

TEST(Safetensors, RefusesWhatIsNoRegularFileWithoutBlocking) {
  const TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  ASSERT_EQ(::symlink((dir / "loop").c_str(), (dir / "loop").c_str()), 0);
  for (const std::string& path :
       {dir / "fifo", dir.path(), std::string("/dev/zero"), dir / "loop", dir / "none"}) {
    EXPECT_NE(Refusal([&] { SafetensorsFile file(path); }), "") << path;
  }
}

TEST(Safetensors, AHugeHeaderLengthOnASmallFileCostsNoMemory) {
  const TempDir dir;
  const std::string path = dir.Write("f", Bytes("{}", 0, 99'000'000));
  ASSERT_EQ(::truncate(path.c_str(), 99'000'100), 0);  // sparse: the header is NULs
  EXPECT_NE(Refusal([&] { SafetensorsFile file(path); }).find("a NUL byte"), std::string::npos);
}

TEST(Safetensors, ValidCornersAreRead) {
  const TempDir dir;
  const auto good = [&](const std::string& bytes) { return Refused(dir, bytes); };
  EXPECT_EQ(good(Bytes("{}", 0)), "");
  EXPECT_EQ(good(Bytes("{}   \n", 0)), "");
  EXPECT_EQ(good(One("\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]", 4)), "");
  EXPECT_EQ(good(One("\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]", 0)), "");
  // Empty tensors may share an offset with their neighbours.
  EXPECT_EQ(good(Bytes("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]},"
                       "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                       "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
                       3)),
            "");
}

TEST(Safetensors, ReadsWhatTheReferenceLibraryWrote) {
  const SafetensorsFile file(TEMPER_SOURCE_DIR "/tests/engine/goldens/hf.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.tensors().size(), 9u);
  const auto f32 = file.ReadFloats("f32");
  EXPECT_EQ(f32, (std::vector<float>{1.5f, -2.25f, 1e-40f, 3.4e38f, 0.0f, -0.0f}));
  EXPECT_TRUE(std::signbit(f32[5]));
  EXPECT_EQ(file.tensors().at("f32").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(file.ReadFloats("bf16"), (std::vector<float>{1.0f, -3.140625f, 0x1.94p99f}));
  EXPECT_EQ(file.ReadFloats("f16"), (std::vector<float>{0.0f, -0.0f, 0x1p-24f, 0x1.ff8p-15f,
                                                        0x1p-14f, 1.0f, -2.0f, 65504.0f}));
  EXPECT_EQ(file.ReadInts("i32"), (std::vector<std::int32_t>{-1, 2147483647}));
  EXPECT_EQ(file.ReadInts("i64"),
            (std::vector<std::int32_t>{7, std::numeric_limits<std::int32_t>::min()}));
  EXPECT_EQ(file.ReadInts("u8"), (std::vector<std::int32_t>{0, 255}));
  EXPECT_TRUE(file.ReadFloats("empty").empty());
  EXPECT_EQ(file.ReadFloats("scalar"), std::vector<float>{4.0f});
  EXPECT_NE(Refusal([&] { file.ReadInts("big"); }).find("1099511627776 does not fit 32 bits"),
            std::string::npos);
  EXPECT_NE(Refusal([&] { file.ReadFloats("i32"); }).find("dtype I32 where F32, BF16 or F16"),
            std::string::npos);
  EXPECT_NE(Refusal([&] { file.ReadInts("f32"); }).find("dtype F32 where I32"), std::string::npos);
  EXPECT_NE(Refusal([&] { file.ReadFloats("nope"); }).find("there is no tensor \"nope\""),
            std::string::npos);
}

TEST(Safetensors, AFileThatShrinksIsAnErrorNotACrash) {
  const TempDir dir;
  const std::string path =
      dir.Write("f", One("\"dtype\":\"F32\",\"shape\":[1024],\"data_offsets\":[0,4096]", 4096));
  const SafetensorsFile file(path);
  ASSERT_EQ(::truncate(path.c_str(), 100), 0);
  EXPECT_NE(Refusal([&] { file.ReadFloats("x"); }).find("the file shrank"), std::string::npos);
}

TEST(FloatBits, EveryHalfIsExact) {
  std::vector<std::uint16_t> halves(65536);
  std::iota(halves.begin(), halves.end(), std::uint16_t{0});
  std::vector<float> all(halves.size());
  kernels::DecodeF16(halves.data(), 65536, all.data());
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float got = all[bits];
    float alone = 0;  // fewer than a register holds
    kernels::DecodeF16(&halves[bits], 1, &alone);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(alone), std::bit_cast<std::uint32_t>(got));
    if (exponent == 31 && mantissa != 0) {
      EXPECT_TRUE(std::isnan(got));
      continue;
    }
    double want = exponent == 31  ? std::numeric_limits<double>::infinity()
                  : exponent == 0 ? std::ldexp(mantissa, -24)
                                  : std::ldexp(1024 + mantissa, exponent - 25);
    if (bits & 0x8000) want = -want;
    EXPECT_EQ(got, want);
    EXPECT_EQ(std::signbit(got), (bits & 0x8000) != 0);
  }
}

TEST(FloatBits, Bf16RoundsToNearestEvenAndKeepsNaN) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float exact = kernels::DecodeBf16(static_cast<std::uint16_t>(bits));
    if (std::isnan(exact)) continue;
    EXPECT_EQ(kernels::EncodeBf16(exact), bits);
  }
  const auto round = [](std::uint32_t bits) {
    return kernels::EncodeBf16(std::bit_cast<float>(bits));
  };
  EXPECT_EQ(round(0x3F808000), 0x3F80);  // a tie goes to the even one
  EXPECT_EQ(round(0x3F818000), 0x3F82);
  EXPECT_EQ(round(0x3F808001), 0x3F81);
  EXPECT_EQ(round(0x3F807FFF), 0x3F80);
  EXPECT_EQ(round(0x7F7FFFFF), 0x7F80);  // past the largest: infinity
  EXPECT_TRUE(std::isnan(kernels::DecodeBf16(round(0x7F800001))));
}

TEST(SafetensorsWriter, WhatItWritesItsReaderReads) {
  const TempDir dir;
  SafetensorsWriter writer(dir / "f", {{"b", Dtype::kF32, {2, 2}},
                                       {"none", Dtype::kF32, {0, 5}},
                                       {"a\"\n", Dtype::kBf16, {3}},
                                       {"i", Dtype::kI32, {1}},
                                       {"tail", Dtype::kF32, {0}}});
  const std::vector<float> b = {1, 2, 3, 4}, a = {1.0f, 1.00390625f, -0.1f};
  const std::vector<std::int32_t> i = {-7};
  writer.WriteFloats(std::span(b).first(1));  // in any portions
  writer.WriteFloats(std::span(b).subspan(1));
  writer.WriteFloats(a);
  writer.WriteInts(i);
  writer.Close();
  const SafetensorsFile file(dir / "f");
  EXPECT_EQ(file.ReadFloats("b"), b);
  EXPECT_EQ(file.ReadFloats("a\"\n"), (std::vector<float>{1.0f, 1.0f, -0.10009765625f}));
  EXPECT_EQ(file.ReadInts("i"), i);
  EXPECT_EQ(file.tensors().at("none").shape, (std::vector<std::int64_t>{0, 5}));
  EXPECT_EQ(file.tensors().at("b").begin % 8, 0u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
}

TEST(SafetensorsWriter, WrongSizesAreBugs) {
  const TempDir dir;
  SafetensorsWriter writer(dir / "f", {{"x", Dtype::kF32, {2}}});
  const std::vector<float> three = {1, 2, 3};
  EXPECT_THROW(writer.WriteFloats(three), std::logic_error);
  writer.WriteFloats(std::span(three).first(1));
  EXPECT_THROW(writer.Close(), std::logic_error);
}

TEST(SafetensorsWriter, AFullDiskIsTheMachinesFault) {
  EXPECT_THROW(
      {
        SafetensorsWriter writer("/dev/full", {{"x", Dtype::kF32, {1024}}});
        writer.WriteFloats(std::vector<float>(1024));
        writer.Close();
      },
      MachineError);
  EXPECT_THROW(SafetensorsWriter("/nonexistent/f", {}), MachineError);
}

}  // namespace
}  // namespace temper::engine
