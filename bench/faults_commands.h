#pragma once
// The subcommands of `faults`.
#include <string>
#include <vector>

namespace temper::bench {

int RunDisk(const std::vector<std::string>& arguments);

}  // namespace temper::bench
