// The weights of a model folder, a few rows at a time.
#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "configs/error.h"
#include "configs/json.h"
#include "engine/checkpoint.h"
#include "engine/float_bits.h"
#include "engine/tensor_places.h"
#include "kernels/bf16.h"
#include "kernels/f16.h"
#include "kernels/linear.h"

namespace temper::engine {
namespace {

std::int64_t Blocks(std::int64_t n) { return (n + kernels::kBlock - 1) / kernels::kBlock; }

}  // namespace

std::int64_t Rows(const TensorSpec& spec) { return spec.shape.size() == 2 ? spec.shape[0] : 1; }
std::int64_t Columns(const TensorSpec& spec) { return spec.shape.back(); }

struct CheckpointRows::State {
  CheckpointReader reader;
  std::vector<TensorSpec> specs;
  std::vector<TensorPlace> places;
  std::vector<std::byte> raw;
  std::vector<float> values;
  std::vector<float> scales;  // of the tensor `scaled`
  std::size_t scaled = std::size_t(-1);

  State(const std::string& dir, const ModelConfig& config)
      : reader(dir),
        specs(RequiredTensors(config)),
        places(FindTensors(dir, reader, config, specs)) {}

  std::string Where(std::size_t i) const {
    return reader.File(places[i].tensor).path() + ": tensor " + configs::Quote(places[i].tensor) +
           ": ";
  }

  // The multipliers of one tensor, read and checked whole: they are 1/16384 of it.
  void ReadScales(std::size_t i) {
    if (scaled == i) return;
    const TensorPlace& place = places[i];
    const std::int64_t n = Rows(specs[i]), k = Columns(specs[i]), count = Blocks(n) * Blocks(k);
    const SafetensorsFile& file = reader.File(place.scale);
    scales.resize(std::size_t(count));
    if (reader.Info(place.scale).dtype == Dtype::kF8E8m0) {
      std::vector<std::uint8_t> codes(scales.size());
      file.ReadPart(place.scale, place.first_scale, std::as_writable_bytes(std::span(codes)));
      std::transform(codes.begin(), codes.end(), scales.begin(), FloatOfE8m0);
    } else {
      file.ReadPart(place.scale, place.first_scale * 4, std::as_writable_bytes(std::span(scales)));
    }
    const std::string bad = kernels::CheckFp8Scales(scales.data(), int(n), int(k));
    if (!bad.empty()) throw UserError(Where(i) + bad);
    scaled = i;
  }

  template <typename Value>
  void RefuseNonFinite(std::size_t i, std::int64_t first, std::span<const Value> values) const {
    const std::int64_t at = kernels::FindNonFinite(values.data(), std::int64_t(values.size()));
    if (at < 0) return;
    throw UserError(Where(i) + "element " +
                    std::to_string(places[i].first + first * Columns(specs[i]) + at) +
                    " is not finite");
  }
};

CheckpointRows::CheckpointRows(const std::string& model_dir, const ModelConfig& config)
    : state_(std::make_unique<State>(model_dir, config)) {}
CheckpointRows::~CheckpointRows() = default;

const std::vector<TensorSpec>& CheckpointRows::specs() const { return state_->specs; }
bool CheckpointRows::coded(std::size_t spec) const {
  return state_->places[spec].dtype == Dtype::kF8E4m3;
}
std::int64_t CheckpointRows::RowBytes(std::size_t spec) const {
  return Columns(state_->specs[spec]) * std::int64_t(DtypeSize(state_->places[spec].dtype));
}

RowData CheckpointRows::Read(std::size_t i, std::int64_t first, std::int64_t rows) {
  State& s = *state_;
  const TensorPlace& place = s.places[i];
  const std::int64_t k = Columns(s.specs[i]);
  const std::size_t count = std::size_t(rows * k), size = DtypeSize(place.dtype);
  RowData out;
  out.first = first;
  out.rows = rows;
  s.raw.resize(count * size);
  s.reader.File(place.tensor)
      .ReadPart(place.tensor, std::uint64_t(place.first + first * k) * size, s.raw);
  if (place.dtype == Dtype::kF8E4m3) {
    s.ReadScales(i);
    out.codes = {reinterpret_cast<const std::uint8_t*>(s.raw.data()), count};
    const std::int64_t nan = kernels::FindNanCode(out.codes.data(), std::int64_t(count));
    if (nan >= 0)
      throw UserError(s.Where(i) +
                      kernels::NanCodeText(place.first / k + first + nan / k, nan % k));
    out.scales = std::span(s.scales).subspan(std::size_t(first / kernels::kBlock * Blocks(k)),
                                             std::size_t(Blocks(rows) * Blocks(k)));
  } else if (place.dtype == Dtype::kF32) {
    out.values = {reinterpret_cast<const float*>(s.raw.data()), count};
    s.RefuseNonFinite(i, first, out.values);
  } else if (place.dtype == Dtype::kBf16) {
    out.bf16 = {reinterpret_cast<const std::uint16_t*>(s.raw.data()), count};
    s.RefuseNonFinite(i, first, out.bf16);
  } else {
    s.values.resize(count);
    const auto* half = reinterpret_cast<const std::uint16_t*>(s.raw.data());
    kernels::DecodeF16(half, std::int64_t(count), s.values.data());
    out.values = s.values;
    s.RefuseNonFinite(i, first, out.values);
  }
  return out;
}

}  // namespace temper::engine
