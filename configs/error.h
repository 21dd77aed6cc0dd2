#pragma once
// Who must act on an error: the exception's type decides the program's exit code.
#include <stdexcept>
#include <string>

namespace temper {

/// The user's input is wrong (config, file, script, argument). Exit 2.
/// what() is one line: where, what was found, the rule, what to do.
struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The machine or a peer failed (I/O, socket, port in use, disk full, database). Exit 3.
struct MachineError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A std::logic_error is a bug of ours: exit 4.

}  // namespace temper
