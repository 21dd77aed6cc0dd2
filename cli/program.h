#pragma once
// A program as a table of commands, and the one place where exceptions become exit codes.
#include <span>
#include <string>
#include <vector>

namespace temper::cli {

using Arguments = std::vector<std::string>;

struct Command {
  const char* name;  // "" in a group that runs without one
  const char* does;  // one line; "" hides it from --help
  int (*run)(const Arguments& args);
};

/// 0 good, 1 a check says no, 2 UserError, 3 MachineError, 4 a bug; errors are one line on stderr.
/// Results that stdout did not take (a full disk) are a MachineError too.
int RunProgram(const std::string& program, const std::string& does, std::span<const Command> table,
               int argc, char** argv);

/// The same for a group such as `temper probe`: throws UserError for an unknown name.
int RunGroup(const std::string& group, const std::string& does, std::span<const Command> table,
             const Arguments& args);

/// A JSON line on stdout.
void PrintLine(const std::string& json);

}  // namespace temper::cli
