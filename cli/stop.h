#pragma once
// SIGINT and SIGTERM as a flag that a role looks at between two pieces of work.
#include <atomic>

namespace temper::cli {

/// Installs the handlers; the flag is set by the first signal, the second one ends the process.
const std::atomic<bool>* StopOnSignal();

}  // namespace temper::cli
