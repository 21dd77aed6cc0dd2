#include "cli/program.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <system_error>

#include "configs/error.h"
#include "configs/json.h"
#include "configs/version.h"
#include "kernels/cpu.h"

namespace temper::cli {
namespace {

std::string Help(const std::string& name, const std::string& does, std::span<const Command> table) {
  std::string text = "usage: " + name + " COMMAND ...\n" + does + "\n\n";
  for (const Command& command : table) {
    if (command.does[0] == '\0') continue;
    std::string line = std::string("  ") + command.name;
    line.resize(std::max<std::size_t>(line.size() + 2, 18), ' ');
    text += line + command.does + "\n";
  }
  return text + "\n" + name + " COMMAND --help says more.\n";
}

int Dispatch(const std::string& name, const std::string& does, std::span<const Command> table,
             const Arguments& args) {
  if (args.empty()) {
    std::fputs(Help(name, does, table).c_str(), stderr);
    return 2;
  }
  if (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
    std::fputs(Help(name, does, table).c_str(), stdout);
    return 0;
  }
  for (const Command& command : table) {
    if (args[0] == command.name) return command.run(Arguments(args.begin() + 1, args.end()));
  }
  throw UserError(name + ": " + configs::Quote(args[0]) + " is not a command; " + name +
                  " --help lists them");
}

/// A wrong TEMPER_ISA is the user's, not a bug of ours that the kernels report.
void CheckIsa() {
  try {
    kernels::ActiveIsa();
  } catch (const std::invalid_argument& error) {
    throw UserError(std::string("TEMPER_ISA: ") + error.what());
  }
}

int Complain(const std::string& program, std::string what, int code) {
  for (char& c : what) {
    if (c == '\n') c = ' ';  // one line, whatever a library put into it
  }
  if (what.rfind(program, 0) != 0) what = program + ": " + what;  // usage errors name it already
  std::fflush(stdout);
  std::fprintf(stderr, "%s\n", what.c_str());
  return code;
}

std::string FirstLine(const char* what) {
  return std::string(what).substr(0, std::string(what).find('\n'));
}

}  // namespace

int RunProgram(const std::string& program, const std::string& does, std::span<const Command> table,
               int argc, char** argv) {
  std::signal(SIGCHLD, SIG_DFL);  // ignored, as some parents leave it, children's ends go unseen
  try {
    const Arguments args(argv + 1, argv + argc);
    if (!args.empty() && args[0] == "--version") {
      std::printf("%s %s\n", program.c_str(), kVersion);
      return 0;
    }
    CheckIsa();
    const int code = Dispatch(program, does, table, args);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      throw MachineError(std::string("stdout: ") + std::strerror(errno));
    }
    return code;
  } catch (const UserError& error) {
    return Complain(program, error.what(), 2);
  } catch (const MachineError& error) {
    return Complain(program, error.what(), 3);
  } catch (const std::bad_alloc&) {
    return Complain(program, "out of memory", 3);
  } catch (const std::system_error& error) {
    return Complain(program, error.what(), 3);
  } catch (const std::exception& error) {
    return Complain(program, "a bug: " + FirstLine(error.what()), 4);
  }
}

int RunGroup(const std::string& group, const std::string& does, std::span<const Command> table,
             const Arguments& args) {
  return Dispatch(group, does, table, args);
}

void PrintLine(const std::string& json) {
  std::fwrite(json.data(), 1, json.size(), stdout);
  std::fputc('\n', stdout);
}

}  // namespace temper::cli
