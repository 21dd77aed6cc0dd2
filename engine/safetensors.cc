#include "engine/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "configs/error.h"
#include "configs/json.h"
#include "engine/float_bits.h"
#include "kernels/bf16.h"
#include "kernels/f16.h"

static_assert(std::endian::native == std::endian::little, "safetensors is little-endian");

namespace temper::engine {
namespace {

using configs::Quote;

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // safetensors' own cap
constexpr std::size_t kMaxRank = 64;

struct DtypeRow {
  Dtype dtype;
  const char* name;
  std::size_t size;
};
constexpr std::array<DtypeRow, 9> kDtypes = {{{Dtype::kF32, "F32", 4},
                                              {Dtype::kBf16, "BF16", 2},
                                              {Dtype::kF16, "F16", 2},
                                              {Dtype::kF8E4m3, "F8_E4M3", 1},
                                              {Dtype::kI32, "I32", 4},
                                              {Dtype::kI64, "I64", 8},
                                              {Dtype::kU8, "U8", 1},
                                              {Dtype::kF64, "F64", 8},
                                              {Dtype::kF8E8m0, "F8_E8M0", 1}}};

const DtypeRow& Row(Dtype dtype) { return kDtypes[static_cast<std::size_t>(dtype)]; }

// The reference reads sizes as unsigned integers: "-0" is none.
std::int64_t GetSize(const Json& value, const std::string& where) {
  if (value.is_number_integer() && !value.is_number_unsigned() && value.get<std::int64_t>() == 0) {
    throw UserError(where + ": -0 must be an integer in [0, 9223372036854775807]");
  }
  return configs::GetInt(value, where, 0, std::numeric_limits<std::int64_t>::max());
}

// Checks one header against its file; every message starts with the path.
class HeaderReader {
 public:
  HeaderReader(const configs::InputFile& file, std::map<std::string, TensorInfo>& tensors,
               std::map<std::string, std::string>& metadata)
      : file_(file), tensors_(tensors), metadata_(metadata) {}

  void Read() {
    std::string text = ReadText();
    configs::JsonLimits limits;
    limits.max_depth = 4;
    limits.max_values = std::size_t{4} << 20;
    Json header = configs::ParseJson(text, file_.path() + ": header", limits);
    std::string().swap(text);  // metadata may be long: it is not kept twice
    data_bytes_ = file_.size() - data_begin_;
    for (auto& [name, value] : header.get_ref<Json::object_t&>()) {
      if (name == "__metadata__") {
        ReadMetadata(value);
      } else {
        tensors_.emplace(name, ReadTensor(name, value));
      }
    }
    CheckLayout();
    for (auto& [name, info] : tensors_) {
      info.begin += data_begin_;
      info.end += data_begin_;
    }
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    throw UserError(file_.path() + ": " + what);
  }
  [[noreturn]] void FailTensor(const std::string& name, const std::string& what) const {
    Fail("tensor " + Quote(name) + ": " + what);
  }

  // Other model files are named before their first bytes are taken for a length.
  void RefuseOtherFormats() const {
    constexpr std::pair<std::string_view, const char*> kMagics[] = {
        {"PK\x03\x04", "a ZIP archive, as PyTorch writes .bin and .pt: convert it to safetensors"},
        {"\x80\x02", "a pickle: convert it to safetensors"},
        {"\x80\x03", "a pickle: convert it to safetensors"},
        {"\x80\x04", "a pickle: convert it to safetensors"},
        {"\x80\x05", "a pickle: convert it to safetensors"},
        {"GGUF", "a GGUF file: convert it to safetensors"},
        {"\x7f"
         "ELF",
         "a program, not safetensors"},
        {"\x1f\x8b", "compressed by gzip: unpack it first"},
        {"version h", "a Git LFS pointer: fetch the file itself"}};
    std::string start(std::min<std::uint64_t>(file_.size(), 9), '\0');
    file_.ReadAt(0, std::as_writable_bytes(std::span(start)));
    if (start.size() == 9 && start[8] == '{') return;  // what looks like a magic is a length
    for (const auto& [magic, what] : kMagics) {
      if (start.compare(0, magic.size(), magic) == 0) {
        Fail(std::string("is ") + what);
      }
    }
  }

  std::string ReadText() {
    RefuseOtherFormats();
    if (file_.size() < 8) {
      Fail(std::to_string(file_.size()) + " bytes: a safetensors file has at least 8");
    }
    std::uint64_t length = 0;
    file_.ReadAt(0, std::as_writable_bytes(std::span(&length, 1)));
    if (length > kMaxHeaderBytes) {
      Fail("header of " + std::to_string(length) + " bytes: at most " +
           std::to_string(kMaxHeaderBytes) + "; this may not be a safetensors file");
    }
    if (length > file_.size() - 8) {
      Fail("header of " + std::to_string(length) + " bytes in a file of " +
           std::to_string(file_.size()) + ": the file is cut short");
    }
    std::string text(length, '\0');
    file_.ReadAt(8, std::as_writable_bytes(std::span(text)));
    if (text.empty() || text[0] != '{') Fail("header must start with '{'");
    data_begin_ = 8 + length;
    return text;
  }

  void ReadMetadata(Json& value) {
    if (!value.is_object()) Fail("__metadata__ must be an object of strings");
    for (auto& [key, text] : value.get_ref<Json::object_t&>()) {
      if (!text.is_string()) Fail("__metadata__: " + Quote(key) + " must be a string");
      metadata_.emplace(key, std::move(text.get_ref<std::string&>()));
    }
  }

  const Json& Member(const std::string& name, const Json& value, const char* key) const {
    const auto it = value.find(key);
    if (it == value.end()) FailTensor(name, std::string(key) + " is missing");
    return *it;
  }

  TensorInfo ReadTensor(const std::string& name, const Json& value) const {
    if (!value.is_object()) FailTensor(name, "must be an object");
    TensorInfo info;
    info.dtype = ReadDtype(name, Member(name, value, "dtype"));
    const std::uint64_t bytes = ReadShape(name, Member(name, value, "shape"), info);
    const Json& offsets = Member(name, value, "data_offsets");
    if (!offsets.is_array() || offsets.size() != 2) {
      FailTensor(name, "data_offsets must be [begin, end]");
    }
    const std::string where = file_.path() + ": tensor " + Quote(name) + ": data_offsets";
    info.begin = static_cast<std::uint64_t>(GetSize(offsets[0], where));
    info.end = static_cast<std::uint64_t>(GetSize(offsets[1], where));
    if (info.begin > info.end) {
      FailTensor(name, "data_offsets [" + std::to_string(info.begin) + ", " +
                           std::to_string(info.end) + "] run backwards");
    }
    if (info.end > data_bytes_) {
      FailTensor(name, "ends at byte " + std::to_string(info.end) + " of the data, which has " +
                           std::to_string(data_bytes_));
    }
    if (info.end - info.begin != bytes) {
      FailTensor(name, "data_offsets span " + std::to_string(info.end - info.begin) +
                           " bytes, dtype and shape need " + std::to_string(bytes));
    }
    return info;
  }

  Dtype ReadDtype(const std::string& name, const Json& value) const {
    for (const DtypeRow& row : kDtypes) {
      if (value == row.name) return row.dtype;
    }
    FailTensor(name, "dtype " + configs::Brief(value) + " is not supported");
  }

  // Bytes of the tensor, every product checked.
  std::uint64_t ReadShape(const std::string& name, const Json& value, TensorInfo& info) const {
    if (!value.is_array()) FailTensor(name, "shape must be a list");
    if (value.size() > kMaxRank) {
      FailTensor(name, "shape has " + std::to_string(value.size()) + " dimensions: at most " +
                           std::to_string(kMaxRank));
    }
    std::int64_t bytes = static_cast<std::int64_t>(Row(info.dtype).size);
    for (const Json& d : value) {
      const std::int64_t dim = GetSize(d, file_.path() + ": tensor " + Quote(name) + ": shape");
      if (__builtin_mul_overflow(bytes, dim, &bytes)) {
        FailTensor(name, "shape " + configs::Brief(value) + " overflows 64 bits");
      }
      info.shape.push_back(dim);
    }
    return static_cast<std::uint64_t>(bytes);
  }

  // The tensors cover the data exactly: no hole, no overlap, nothing behind the last.
  void CheckLayout() const {
    std::vector<const std::pair<const std::string, TensorInfo>*> order;
    for (const auto& entry : tensors_) order.push_back(&entry);
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
      return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
    });
    std::uint64_t at = 0;
    for (const auto* entry : order) {
      const TensorInfo& info = entry->second;
      if (info.begin != at) {
        FailTensor(entry->first,
                   "begins at byte " + std::to_string(info.begin) + " of the data" +
                       (info.begin < at ? ", inside another tensor" : ": a hole after byte ") +
                       (info.begin < at ? "" : std::to_string(at)));
      }
      at = info.end;
    }
    if (at != data_bytes_) {
      Fail(std::to_string(data_bytes_ - at) + " bytes behind the last tensor belong to none");
    }
  }

  const configs::InputFile& file_;
  std::map<std::string, TensorInfo>& tensors_;
  std::map<std::string, std::string>& metadata_;
  std::uint64_t data_begin_ = 0, data_bytes_ = 0;
};

template <typename T>
std::vector<T> ReadAs(const SafetensorsFile& file, const std::string& name, std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  file.Read(name, std::as_writable_bytes(std::span(values)));
  return values;
}

}  // namespace

std::size_t DtypeSize(Dtype dtype) { return Row(dtype).size; }
std::string DtypeName(Dtype dtype) { return Row(dtype).name; }

std::int64_t TensorInfo::count() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

SafetensorsFile::SafetensorsFile(const std::string& path)
    : SafetensorsFile(configs::InputFile(path)) {}

SafetensorsFile::SafetensorsFile(configs::InputFile file) : file_(std::move(file)) {
  HeaderReader(file_, tensors_, metadata_).Read();
}

const TensorInfo& SafetensorsFile::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) throw UserError(path() + ": there is no tensor " + Quote(name));
  return it->second;
}

void SafetensorsFile::ReadPart(const std::string& name, std::uint64_t offset,
                               std::span<std::byte> out) const {
  const TensorInfo& info = Find(name);
  const std::uint64_t bytes = info.end - info.begin;
  if (offset > bytes || out.size() > bytes - offset) {
    throw std::logic_error(path() + ": read outside tensor " + Quote(name));
  }
  file_.ReadAt(info.begin + offset, out);
}

void SafetensorsFile::Read(const std::string& name, std::span<std::byte> out) const {
  const TensorInfo& info = Find(name);
  if (out.size() != info.end - info.begin) {
    throw std::logic_error(path() + ": wrong buffer size for tensor " + Quote(name));
  }
  file_.ReadAt(info.begin, out);
}

std::vector<float> SafetensorsFile::ReadFloats(const std::string& name) const {
  const TensorInfo& info = Find(name);
  if (info.dtype == Dtype::kF32) return ReadAs<float>(*this, name, info.count());
  if (info.dtype == Dtype::kF8E8m0) {
    const auto codes = ReadAs<std::uint8_t>(*this, name, info.count());
    std::vector<float> out(codes.size());
    std::transform(codes.begin(), codes.end(), out.begin(), FloatOfE8m0);
    return out;
  }
  if (info.dtype != Dtype::kBf16 && info.dtype != Dtype::kF16) {
    throw UserError(path() + ": tensor " + Quote(name) + ": dtype " + DtypeName(info.dtype) +
                    " where F32, BF16 or F16 is needed");
  }
  std::vector<float> out(static_cast<std::size_t>(info.count()));
  constexpr std::size_t kChunk = std::size_t{1} << 20;
  std::vector<std::uint16_t> raw(std::min(out.size(), kChunk));
  for (std::size_t at = 0; at < out.size(); at += raw.size()) {
    raw.resize(std::min(out.size() - at, kChunk));
    ReadPart(name, at * 2, std::as_writable_bytes(std::span(raw)));
    if (info.dtype == Dtype::kBf16) {
      kernels::DecodeBf16(raw.data(), std::int64_t(raw.size()), out.data() + at);
    } else {
      kernels::DecodeF16(raw.data(), std::int64_t(raw.size()), out.data() + at);
    }
  }
  return out;
}

std::vector<std::int32_t> SafetensorsFile::ReadInts(const std::string& name) const {
  const TensorInfo& info = Find(name);
  if (info.dtype == Dtype::kI32) return ReadAs<std::int32_t>(*this, name, info.count());
  if (info.dtype == Dtype::kU8) {
    const auto bytes = ReadAs<std::uint8_t>(*this, name, info.count());
    return {bytes.begin(), bytes.end()};
  }
  if (info.dtype != Dtype::kI64) {
    throw UserError(path() + ": tensor " + Quote(name) + ": dtype " + DtypeName(info.dtype) +
                    " where I32, I64 or U8 is needed");
  }
  const auto wide = ReadAs<std::int64_t>(*this, name, info.count());
  std::vector<std::int32_t> out(wide.size());
  for (std::size_t i = 0; i < wide.size(); ++i) {
    if (!std::in_range<std::int32_t>(wide[i])) {
      throw UserError(path() + ": tensor " + Quote(name) + ": " + std::to_string(wide[i]) +
                      " does not fit 32 bits");
    }
    out[i] = static_cast<std::int32_t>(wide[i]);
  }
  return out;
}

}  // namespace temper::engine
