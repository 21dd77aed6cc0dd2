#pragma once
// Where the files that ship with the programs lie: the reward library, the quickstart's configs and
// tokenizer.
#include <string>

namespace temper::cli {

/// The path of e.g. "reward/library/sum.lua": below $TEMPER_DATA if set, else
/// <program>/../share/temper, else the source tree that this program was built from. Throws
/// MachineError naming the places.
std::string DataFile(const std::string& relative);

}  // namespace temper::cli
