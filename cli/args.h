#pragma once
// A command line against the options that a subcommand declares.
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace temper::cli {

/// Options are "--name VALUE" or "--name=VALUE"; a value may begin with a dash. "--" ends the
/// options. Wrong use is a UserError "temper generate: --top-p: 1.5 must be in [0, 1]; see temper
/// generate --help".
class Args {
 public:
  /// `command` as typed ("temper generate"), `does` one sentence for --help.
  Args(std::string command, std::string does);

  // Each remembers where the value goes; what stands there is the default that --help shows.
  Args& Positional(const std::string& name, const std::string& help, std::string* out);
  Args& Flag(const std::string& name, const std::string& help, bool* out);
  Args& Text(const std::string& name, const std::string& value, const std::string& help,
             std::string* out);
  Args& List(const std::string& name, const std::string& value, const std::string& help,
             std::vector<std::string>* out);  // may be repeated
  Args& Number(const std::string& name, const std::string& help, double lo, double hi, double* out);
  Args& Integer(const std::string& name, const std::string& help, std::int64_t lo, std::int64_t hi,
                std::int64_t* out);
  Args& Integer(const std::string& name, const std::string& help, int lo, int hi, int* out);
  /// The option or positional declared last must be given.
  Args& Required();
  /// The positional declared last may be left out.
  Args& Optional();
  /// More text under --help.
  Args& Note(const std::string& text);

  /// False: --help was printed and nothing is to be done.
  bool Parse(const std::vector<std::string>& args);
  bool Given(const std::string& name) const;
  [[noreturn]] void Fail(const std::string& what) const;
  const std::string& command() const { return command_; }

 private:
  struct Option {
    std::string name;   // "--top-p"; a positional's without dashes
    std::string value;  // what --help writes for the value; "" = a flag
    std::string help;
    std::string default_text;
    std::function<std::string(const std::string&)> set;  // "" or what is wrong
    bool required = false, positional = false, given = false;
  };
  Args& Add(Option option);
  void Set(Option* option, const std::string& value);
  std::string Help() const;

  std::string command_, does_, note_;
  std::vector<Option> options_;
};

}  // namespace temper::cli
