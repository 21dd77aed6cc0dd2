// `temper convert`: rows of one folder into another.
#include <map>

#include "engine/checkpoint.h"
#include "engine/new_folder.h"

namespace temper::engine {

void ConvertModel(const std::string& in, const Storage& storage, const std::string& out,
                  std::uint64_t shard_bytes, const StoreProgress& progress) {
  const ModelConfig config = ReadModelConfig(in);
  CheckpointRows files(in, config);
  std::map<std::string, std::size_t> index;
  for (std::size_t i = 0; i < files.specs().size(); ++i) index[files.specs()[i].name] = i;
  NewFolder folder(out);
  const RowSource rows = [&](const TensorSpec& spec, std::int64_t first, std::int64_t count) {
    return files.Read(index.at(spec.name), first, count);
  };
  WriteCheckpoint(folder.path(), config, storage, in, Reporting(config, rows, progress),
                  shard_bytes);
  folder.Commit();
}

}  // namespace temper::engine
