#pragma once
// The safetensors container: total reading by pread, streaming writing.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "configs/files.h"

namespace temper::engine {

enum class Dtype { kF32, kBf16, kF16, kF8E4m3, kI32, kI64, kU8, kF64, kF8E8m0 };
std::size_t DtypeSize(Dtype dtype);
std::string DtypeName(Dtype dtype);  // "F32", "BF16", "F8_E4M3", ...

struct TensorInfo {
  Dtype dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  // bytes in the file
  std::int64_t count() const;
};

/// One file. The header is validated whole at opening: bounds, overlaps, holes, duplicates, dtype
/// and shape products (safetensors' own rules). Throws UserError "<path>: <what>: <rule>";
/// MachineError on I/O errors.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  explicit SafetensorsFile(configs::InputFile file);
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return file_.path(); }
  bool Has(const std::string& name) const { return tensors_.count(name) != 0; }
  /// Raw bytes, the whole tensor. Throws UserError if the file shrank.
  void Read(const std::string& name, std::span<std::byte> out) const;
  /// Raw bytes from `offset` bytes into the tensor; [offset, offset + out.size()) lies inside it.
  void ReadPart(const std::string& name, std::uint64_t offset, std::span<std::byte> out) const;
  /// F32, BF16, F16 or F8_E8M0 (powers of two) converted to float, exactly.
  std::vector<float> ReadFloats(const std::string& name) const;
  /// I32 and U8 as they are; I64 where every value fits. Throws UserError otherwise.
  std::vector<std::int32_t> ReadInts(const std::string& name) const;

 private:
  const TensorInfo& Find(const std::string& name) const;

  configs::InputFile file_;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Writes one file: declare all tensors, then give their bytes in the declared order. Write()
/// checks sizes; Close() fsyncs. Tensors are laid out in declaration order after an 8-byte aligned
/// header; metadata {"format": "pt"} is what transformers wants. Throws MachineError with errno's
/// text (disk full: exit 3).
class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    Dtype dtype;
    std::vector<std::int64_t> shape;
  };
  SafetensorsWriter(const std::string& path, std::vector<Entry> entries,
                    std::map<std::string, std::string> metadata = {{"format", "pt"}});
  ~SafetensorsWriter();
  void Write(std::span<const std::byte> bytes);
  void WriteFloats(std::span<const float> values);  // converts to the entry's dtype (F32 or BF16,
                                                    // round to nearest even)
  void WriteInts(std::span<const std::int32_t> values);
  void Close();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// All tensors of a model folder: model.safetensors or the shards of model.safetensors.index.json.
/// File names that leave the folder are refused.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::string& model_dir);
  ~CheckpointReader();
  bool Has(const std::string& name) const;
  const TensorInfo& Info(const std::string& name) const;
  std::vector<std::string> Names() const;  // ascending
  std::vector<float> ReadFloats(const std::string& name) const;
  /// The file that holds a tensor.
  const SafetensorsFile& File(const std::string& name) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::engine
