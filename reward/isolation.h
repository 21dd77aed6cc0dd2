#pragma once
// What the kernel takes away from a sandbox process before it sees a script.
#include <string>

namespace temper::reward {

/// Limits and filters the calling process for ever: no core file, no file growth, no new file or
/// process, an address space three times `memory_mib` and some above the present one, no new
/// privileges, and a list of allowed system calls (read and write on `channel`, memory without
/// execution, futex, exit, the clock). Returns what is missing on this machine, comma-separated; ""
/// = all of it is in force.
std::string Isolate(int channel, int memory_mib);

}  // namespace temper::reward
