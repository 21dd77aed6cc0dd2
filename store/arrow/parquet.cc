#include "store/parquet.h"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/writer.h>

#include <utility>
#include <vector>

#include "configs/error.h"

namespace temper::store {

namespace {

enum class Kind { kText, kJson, kInteger, kReal, kIds, kReals, kIntegers, kBytes };

const std::pair<const char*, Kind> kColumns[] = {{"name", Kind::kText},
                                                 {"grp", Kind::kInteger},
                                                 {"sample", Kind::kInteger},
                                                 {"attempt", Kind::kInteger},
                                                 {"version", Kind::kInteger},
                                                 {"version_last", Kind::kInteger},
                                                 {"seed", Kind::kInteger},
                                                 {"state", Kind::kText},
                                                 {"reason", Kind::kText},
                                                 {"actor", Kind::kText},
                                                 {"prompt", Kind::kJson},
                                                 {"row", Kind::kJson},
                                                 {"text", Kind::kText},
                                                 {"prompt_ids", Kind::kIds},
                                                 {"ids", Kind::kIds},
                                                 {"logp", Kind::kReals},
                                                 {"versions", Kind::kIntegers},
                                                 {"loss_mask", Kind::kBytes},
                                                 {"finish_reason", Kind::kText},
                                                 {"score", Kind::kReal},
                                                 {"status", Kind::kText},
                                                 {"advantage", Kind::kReal},
                                                 {"trained_step", Kind::kInteger},
                                                 {"lag", Kind::kInteger},
                                                 {"received_ms", Kind::kInteger},
                                                 {"parts", Kind::kJson}};
constexpr std::int64_t kRowGroup = 4096;

std::shared_ptr<arrow::DataType> TypeOf(Kind kind) {
  switch (kind) {
    case Kind::kText:
    case Kind::kJson:
      return arrow::utf8();
    case Kind::kInteger:
      return arrow::int64();
    case Kind::kReal:
      return arrow::float64();
    case Kind::kIds:
      return arrow::list(arrow::int32());
    case Kind::kReals:
      return arrow::list(arrow::float32());
    case Kind::kIntegers:
      return arrow::list(arrow::int64());
    case Kind::kBytes:
      return arrow::list(arrow::int8());
  }
  throw std::logic_error("parquet: a kind without a type");
}

template <class Values, class T>
arrow::Status AddList(arrow::ArrayBuilder* builder, const Json& value) {
  auto* list = static_cast<arrow::ListBuilder*>(builder);
  ARROW_RETURN_NOT_OK(list->Append());
  auto* values = static_cast<Values*>(list->value_builder());
  for (const Json& x : value) ARROW_RETURN_NOT_OK(values->Append(x.get<T>()));
  return arrow::Status::OK();
}

arrow::Status AddValue(arrow::ArrayBuilder* builder, Kind kind, const Json& value) {
  if (value.is_null()) return builder->AppendNull();
  switch (kind) {
    case Kind::kText:
      return static_cast<arrow::StringBuilder*>(builder)->Append(
          value.get_ref<const std::string&>());
    case Kind::kJson:
      return static_cast<arrow::StringBuilder*>(builder)->Append(value.dump());
    case Kind::kInteger:
      return static_cast<arrow::Int64Builder*>(builder)->Append(value.get<std::int64_t>());
    case Kind::kReal:
      return static_cast<arrow::DoubleBuilder*>(builder)->Append(value.get<double>());
    case Kind::kIds:
      return AddList<arrow::Int32Builder, std::int32_t>(builder, value);
    case Kind::kReals:
      return AddList<arrow::FloatBuilder, float>(builder, value);
    case Kind::kIntegers:
      return AddList<arrow::Int64Builder, std::int64_t>(builder, value);
    case Kind::kBytes:
      return AddList<arrow::Int8Builder, std::int8_t>(builder, value);
  }
  return arrow::Status::Invalid("a kind without a builder");
}

}  // namespace

struct ParquetWriter::State {
  std::string path;
  std::shared_ptr<arrow::Schema> schema;
  std::unique_ptr<parquet::arrow::FileWriter> writer;
  std::unique_ptr<arrow::RecordBatchBuilder> rows;
  std::int64_t waiting = 0;

  void Check(const arrow::Status& status) const {
    if (!status.ok()) throw MachineError(path + ": " + status.message());
  }
  template <class T>
  T Take(arrow::Result<T> result) const {
    Check(result.status());
    return std::move(result).ValueUnsafe();
  }
  void Flush() {
    if (waiting == 0) return;
    Check(writer->WriteRecordBatch(*Take(rows->Flush())));
    waiting = 0;
  }
};

ParquetWriter::ParquetWriter(const std::string& path) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = path;
  arrow::FieldVector fields;
  for (const auto& [name, kind] : kColumns) fields.push_back(arrow::field(name, TypeOf(kind)));
  s.schema = arrow::schema(std::move(fields));
  const auto file = s.Take(arrow::io::FileOutputStream::Open(path));
  const auto properties =
      parquet::WriterProperties::Builder().compression(parquet::Compression::SNAPPY)->build();
  s.writer = s.Take(
      parquet::arrow::FileWriter::Open(*s.schema, arrow::default_memory_pool(), file, properties));
  s.rows = s.Take(arrow::RecordBatchBuilder::Make(s.schema, arrow::default_memory_pool()));
}

ParquetWriter::~ParquetWriter() = default;

void ParquetWriter::Add(const Json& rollout) {
  State& s = *state_;
  for (int i = 0; i < s.schema->num_fields(); ++i) {
    const auto& [name, kind] = kColumns[i];
    const auto value = rollout.find(name);
    s.Check(AddValue(s.rows->GetField(i), kind, value == rollout.end() ? Json() : *value));
  }
  if (++s.waiting == kRowGroup) s.Flush();
}

void ParquetWriter::Close() {
  state_->Flush();
  state_->Check(state_->writer->Close());
}

}  // namespace temper::store
