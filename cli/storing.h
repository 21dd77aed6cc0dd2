#pragma once
// How far a model's writing is, on stderr.
#include "engine/checkpoint.h"

namespace temper::cli {

/// Silent for the first two seconds: a small model is there by then.
engine::StoreProgress ShowStoring(const char* command);

}  // namespace temper::cli
