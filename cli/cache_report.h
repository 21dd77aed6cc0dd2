#pragma once
// What a token costs in the cache: MLA's latent row beside what other attentions would store.
#include <string>

namespace temper::cli {

/// Lines of `temper bench --cache-report` for a model's shape: bytes a token and layer, computed
/// for MHA, GQA with 8 groups, MQA and MLA, and for MLA measured in the pages of a running engine.
int CacheReport(const std::string& model_dir, int threads);

}  // namespace temper::cli
