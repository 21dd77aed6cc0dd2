// A build without Arrow.
#include "store/parquet.h"

#include "configs/error.h"

namespace temper::store {

struct ParquetWriter::State {};

ParquetWriter::ParquetWriter(const std::string& path) {
  throw UserError(path +
                  ": this build writes no Parquet; configure with -DTEMPER_ARROW=DIR "
                  "(docs/formats.md), or export JSON lines");
}
ParquetWriter::~ParquetWriter() = default;
void ParquetWriter::Add(const Json&) {}
void ParquetWriter::Close() {}

}  // namespace temper::store
