#include "cli/args.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <sstream>

#include "configs/error.h"
#include "configs/json.h"

namespace temper::cli {
namespace {

template <class T>
bool Parsed(const std::string& text, T* out) {
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, *out);
  return error == std::errc() && at == end;
}

template <class T>
std::string Plain(T x) {
  std::ostringstream out;
  out.precision(17);
  out << x;
  return out.str();
}

/// "in [0, 1]", ">= 1": the rule as people write it.
template <class T>
std::string RangeText(T lo, T hi) {
  if (hi == std::numeric_limits<T>::max()) return ">= " + Plain(lo);
  return "in [" + Plain(lo) + ", " + Plain(hi) + "]";
}

template <class T>
std::function<std::string(const std::string&)> Within(T lo, T hi, T* out, const char* kind) {
  return [=](const std::string& text) -> std::string {
    T x{};
    if (!Parsed(text, &x))
      return configs::Quote(text) + " must be " + kind + " " + RangeText(lo, hi);
    if (!(x >= lo && x <= hi)) return text + " must be " + RangeText(lo, hi);
    *out = x;
    return "";
  };
}

}  // namespace

Args::Args(std::string command, std::string does)
    : command_(std::move(command)), does_(std::move(does)) {}

Args& Args::Add(Option option) {
  options_.push_back(std::move(option));
  return *this;
}

Args& Args::Positional(const std::string& name, const std::string& help, std::string* out) {
  return Add({name, name, help, *out,
              [out](const std::string& text) {
                *out = text;
                return std::string();
              },
              true, true});
}

Args& Args::Flag(const std::string& name, const std::string& help, bool* out) {
  return Add({name, "", help, "", [out](const std::string&) {
                *out = true;
                return std::string();
              }});
}

Args& Args::Text(const std::string& name, const std::string& value, const std::string& help,
                 std::string* out) {
  return Add({name, value, help, *out, [out](const std::string& text) {
                *out = text;
                return std::string();
              }});
}

Args& Args::List(const std::string& name, const std::string& value, const std::string& help,
                 std::vector<std::string>* out) {
  return Add({name, value, help + " (may be repeated)", "", [out](const std::string& text) {
                out->push_back(text);
                return std::string();
              }});
}

Args& Args::Number(const std::string& name, const std::string& help, double lo, double hi,
                   double* out) {
  return Add({name, "X", help, Plain(*out), Within(lo, hi, out, "a number")});
}

Args& Args::Integer(const std::string& name, const std::string& help, std::int64_t lo,
                    std::int64_t hi, std::int64_t* out) {
  return Add({name, "N", help, Plain(*out), Within(lo, hi, out, "an integer")});
}

Args& Args::Integer(const std::string& name, const std::string& help, int lo, int hi, int* out) {
  return Add({name, "N", help, Plain(*out), Within(lo, hi, out, "an integer")});
}

Args& Args::Required() {
  options_.back().required = true;
  return *this;
}

Args& Args::Optional() {
  options_.back().required = false;
  return *this;
}

Args& Args::Note(const std::string& text) {
  note_ += text;
  return *this;
}

void Args::Fail(const std::string& what) const {
  throw UserError(command_ + ": " + what + "; see " + command_ + " --help");
}

void Args::Set(Option* option, const std::string& value) {
  const std::string wrong = option->set(value);
  if (!wrong.empty()) Fail(option->name + ": " + wrong);
  option->given = true;
}

bool Args::Parse(const std::vector<std::string>& args) {
  bool options_end = false;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (!options_end && arg == "--") {
      options_end = true;
      continue;
    }
    if (!options_end && (arg == "--help" || arg == "-h")) {
      std::fputs(Help().c_str(), stdout);
      return false;
    }
    const bool dashed = !options_end && arg.size() > 1 && arg[0] == '-';
    const std::size_t equals = dashed ? arg.find('=') : std::string::npos;
    const std::string name = arg.substr(0, equals);
    Option* found = nullptr;
    for (Option& option : options_) {
      if (found == nullptr && (dashed ? option.name == name : option.positional && !option.given)) {
        found = &option;
      }
    }
    if (found == nullptr) Fail(name + ": " + (dashed ? "unknown option" : "one argument too many"));
    if (!dashed) {
      Set(found, arg);
    } else if (found->value.empty()) {
      if (equals != std::string::npos) Fail(name + ": takes no value");
      Set(found, "");
    } else if (equals != std::string::npos) {
      Set(found, arg.substr(equals + 1));
    } else {
      if (i + 1 == args.size()) Fail(name + ": a value must follow: " + name + " " + found->value);
      Set(found, args[++i]);
    }
  }
  for (const Option& option : options_) {
    if (option.required && !option.given) {
      Fail(option.name + " is missing" + (option.help.empty() ? "" : ": " + option.help));
    }
  }
  return true;
}

bool Args::Given(const std::string& name) const {
  for (const Option& option : options_) {
    if (option.name == name) return option.given;
  }
  throw std::logic_error("no option " + name + " in " + command_);
}

std::string Args::Help() const {
  std::string usage = "usage: " + command_, table;
  for (const Option& option : options_) {
    const std::string text =
        option.positional || option.value.empty() ? option.name : option.name + " " + option.value;
    if (option.positional || option.required) {
      usage += option.required ? " " + text : " [" + text + "]";
    }
    std::string line = "  " + text;
    line.resize(std::max<std::size_t>(line.size() + 2, 28), ' ');
    table += line + option.help;
    if (!option.default_text.empty()) table += " [" + option.default_text + "]";
    table += "\n";
  }
  return usage + (options_.empty() ? "" : " [options]") + "\n" + does_ + "\n" +
         (table.empty() ? "" : "\n" + table) + (note_.empty() ? "" : "\n" + note_);
}

}  // namespace temper::cli
