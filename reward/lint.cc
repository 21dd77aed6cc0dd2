#include "reward/lint.h"

#include <algorithm>
#include <map>
#include <set>

#include "configs/error.h"
#include "reward/extract.h"
#include "reward/rules.h"
#include "reward/sandbox.h"

namespace temper::reward {
namespace {

const std::map<std::string, std::set<std::string>>& Libraries() {
  static const std::map<std::string, std::set<std::string>> kLibraries = [] {
    std::map<std::string, std::set<std::string>> all = {
        {"string",
         {"byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "pack",
          "packsize", "rep", "reverse", "sub", "unpack", "upper"}},
        {"table", {"concat", "insert", "move", "pack", "remove", "sort", "unpack"}},
        {"math", {"abs", "acos",       "asin", "atan",      "ceil", "cos",    "deg",
                  "exp", "floor",      "fmod", "huge",      "log",  "max",    "maxinteger",
                  "min", "mininteger", "modf", "pi",        "rad",  "random", "randomseed",
                  "sin", "sqrt",       "tan",  "tointeger", "type", "ult"}},
        {"utf8", {"char", "charpattern", "codepoint", "codes", "len", "offset"}}};
    for (const Rule& rule : Rules()) all["rules"].insert(rule.name);
    return all;
  }();
  return kLibraries;
}

const std::set<std::string> kWords = {"and",   "break", "do",       "else", "elseif", "end",
                                      "false", "for",   "function", "goto", "if",     "in",
                                      "local", "nil",   "not",      "or",   "repeat", "return",
                                      "then",  "true",  "until",    "while"};
const std::set<std::string> kKnown = {
    "assert",   "error",  "getmetatable", "ipairs", "next",     "pairs",        "pcall",
    "rawequal", "rawget", "rawlen",       "rawset", "select",   "setmetatable", "tonumber",
    "tostring", "type",   "xpcall",       "_G",     "_VERSION", "_ENV",         "string",
    "table",    "math",   "utf8",         "rules",  "self"};
const std::set<std::string> kForbidden = {
    "io",     "os",    "debug",     "package",        "require",    "load",    "loadfile",
    "dofile", "print", "coroutine", "collectgarbage", "loadstring", "setfenv", "getfenv"};

struct Token {
  std::string text;
  int line = 0;
  bool name = false;
};

/// Names and single signs; texts and comments are left out.
class Scanner {
 public:
  explicit Scanner(const std::string& text) : text_(text) {}

  std::vector<Token> Run() {
    while (at_ < text_.size()) Next();
    return std::move(tokens_);
  }

 private:
  char Here(std::size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }
  void Advance() {
    if (Here() == '\n') ++line_;
    ++at_;
  }
  /// The number of '=' of a long bracket here, -1 if there is none.
  int LongBracket() const {
    if (Here() != '[') return -1;
    std::size_t i = 1;
    while (Here(i) == '=') ++i;
    return Here(i) == '[' ? static_cast<int>(i) - 1 : -1;
  }
  void SkipLong(int level) {
    const std::string close = "]" + std::string(static_cast<std::size_t>(level), '=') + "]";
    const std::size_t end = std::min(text_.find(close, at_), text_.size());
    while (at_ < std::min(end + close.size(), text_.size())) Advance();
  }
  void Next() {
    const char c = Here();
    if (c == '-' && Here(1) == '-') {
      at_ += 2;
      const int level = LongBracket();
      if (level >= 0) return SkipLong(level);
      while (at_ < text_.size() && Here() != '\n') ++at_;
    } else if (c == '"' || c == '\'') {
      Advance();
      while (at_ < text_.size() && Here() != c && Here() != '\n') {
        if (Here() == '\\') Advance();
        Advance();
      }
      Advance();
      tokens_.push_back({"\"", line_, false});
    } else if (LongBracket() >= 0) {
      SkipLong(LongBracket());
      tokens_.push_back({"\"", line_, false});
    } else if (IsLetter(c) || c == '_') {
      const std::size_t begin = at_;
      while (IsLetter(Here()) || IsDigit(Here()) || Here() == '_') ++at_;
      tokens_.push_back({text_.substr(begin, at_ - begin), line_, true});
    } else if (IsDigit(c)) {
      while (IsLetter(Here()) || IsDigit(Here()) || (Here() == '.' && Here(1) != '.')) ++at_;
    } else {
      if (!IsSpace(c)) tokens_.push_back({std::string(1, c), line_, false});
      Advance();
    }
  }

  const std::string& text_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

/// Names that the text sets: local, parameters, loop variables, assigned, functions.
std::set<std::string> SetNames(const std::vector<Token>& tokens) {
  std::set<std::string> names;
  const auto text = [&](std::size_t i) {
    return i < tokens.size() ? tokens[i].text : std::string();
  };
  const auto list = [&](std::size_t i) {  // a, b <const>, c
    for (; i < tokens.size(); ++i) {
      if (tokens[i].name && !kWords.count(tokens[i].text)) {
        names.insert(tokens[i].text);
      } else if (std::string("<>,.").find(tokens[i].text) == std::string::npos) {
        return;
      }
    }
  };
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (text(i) == "local" || text(i) == "for") list(text(i + 1) == "function" ? i + 2 : i + 1);
    if (text(i) == "function") {
      if (i + 1 < tokens.size() && tokens[i + 1].name) names.insert(text(i + 1));
      while (i < tokens.size() && text(i) != "(") ++i;
      list(i + 1);
    }
    const bool assigned = text(i + 1) == "=" && text(i + 2) != "=";
    const bool first = i == 0 || (text(i - 1) != "." && text(i - 1) != ":" && text(i - 1) != "~" &&
                                  text(i - 1) != "<" && text(i - 1) != ">");
    if (i < tokens.size() && tokens[i].name && assigned && first) names.insert(text(i));
    if (i < tokens.size() && tokens[i].name && text(i + 1) == "," && first) {
      // "a, b = f()": the names before an assignment.
      std::size_t k = i;
      while (k + 1 < tokens.size() && tokens[k].name && text(k + 1) == ",") k += 2;
      if (k < tokens.size() && tokens[k].name && text(k + 1) == "=" && text(k + 2) != "=") {
        names.insert(text(i));
      }
    }
  }
  return names;
}

std::string Nearest(const std::string& name, const std::set<std::string>& known) {
  // One letter other, more or less, or two swapped.
  for (const std::string& other : known) {
    if (other.size() > name.size() + 1 || name.size() > other.size() + 1 || other.size() < 3)
      continue;
    std::size_t front = 0;
    while (front < name.size() && front < other.size() && name[front] == other[front]) ++front;
    std::size_t back = 0;
    while (back < std::min(name.size(), other.size()) - front &&
           name[name.size() - 1 - back] == other[other.size() - 1 - back]) {
      ++back;
    }
    const std::size_t longest = std::max(name.size(), other.size());
    if (longest - front - back <= 1 ||
        (longest - front - back == 2 && name.size() == other.size())) {
      return "; did you mean '" + other + "'?";
    }
  }
  return "";
}

struct Trial {
  const char* name;
  std::string completion;
  bool answer;
};

std::vector<Trial> Trials(const SampleInput& like) {
  const std::string answer = like.answer.value_or("42");
  std::string long_text;
  while (long_text.size() < std::size_t{1} << 20) long_text += "so the answer is (" + answer + ") ";
  return {{"empty", "", true},
          {"1 MB of words", long_text, true},
          {"1 MB of one letter", std::string(std::size_t{1} << 20, 'a'), true},
          {"1 MB of brackets", std::string(std::size_t{1} << 20, '('), true},
          {"1 MB of digits", std::string(std::size_t{1} << 20, '7'), true},
          {"invalid UTF-8", "\xff\xfe\xc3( " + answer + " \x80", true},
          {"zero bytes", std::string("a\0b\0", 4) + answer, true},
          {"cut off", "<think>first <answer>" + answer.substr(0, answer.size() / 2) + " \\boxed{",
           true},
          {"repeated", answer + " " + answer + " " + answer + "\n" + answer, true},
          {"the answer alone", answer, true},
          {"no answer in the row", answer, false}};
}

void RunTrials(const FunctionSpec& function, const HostOptions& given, const SampleInput& like,
               std::vector<Finding>* findings) {
  HostOptions options = given;
  options.functions = {function};
  RewardHost host(std::move(options));
  for (const Trial& trial : Trials(like)) {
    SampleInput sample = like;
    sample.completion = trial.completion;
    if (sample.completion_ids.empty()) sample.completion_ids.assign(trial.completion.size() / 4, 7);
    if (!trial.answer) sample.answer.reset();
    const ScoreResult result = host.ScoreGroup(std::vector{sample})[0];
    if (result.status == "ok" || result.status == "not_applicable") continue;
    for (const ScorePart& part : result.parts) {
      if (part.status == "ok") continue;
      findings->push_back(
          {"trial", part.line,
           std::string("completion '") + trial.name + "': " + part.status + ": " + part.message});
    }
  }
}

}  // namespace

std::vector<Finding> LintText(const std::string& script) {
  std::vector<Finding> findings;
  const std::vector<Token> tokens = Scanner(script).Run();
  const std::set<std::string> set = SetNames(tokens);
  std::set<std::string> known = kKnown, told;
  known.insert(set.begin(), set.end());
  const auto sign = [&](std::size_t i) {
    return i < tokens.size() ? tokens[i].text : std::string();
  };
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const Token& token = tokens[i];
    if (!token.name || kWords.count(token.text) != 0) continue;
    const bool field = i > 0 && (sign(i - 1) == "." || sign(i - 1) == ":") &&
                       !(i > 1 && sign(i - 2) == ".");  // "a..b" joins
    if (field) {
      const auto library = i > 1 ? Libraries().find(sign(i - 2)) : Libraries().end();
      const bool outer = i < 3 || (sign(i - 3) != "." && sign(i - 3) != ":");
      if (library == Libraries().end() || !outer || set.count(library->first) != 0) continue;
      if (library->second.count(token.text) == 0) {
        findings.push_back({"forbidden", token.line,
                            library->first + "." + token.text + " does not exist here" +
                                Nearest(token.text, library->second)});
      }
      continue;
    }
    if (sign(i - 1) == "goto" || (sign(i + 1) == ":" && sign(i + 2) == ":")) continue;
    if (kForbidden.count(token.text) != 0 && set.count(token.text) == 0) {
      if (token.text == "print") {
        findings.push_back({"forbidden", token.line, "print is there only in `temper reward try`"});
      } else {
        findings.push_back({"forbidden", token.line, token.text + " is not there in the sandbox"});
      }
    } else if (known.count(token.text) == 0 && told.insert(token.text).second) {
      findings.push_back({"global", token.line,
                          "nothing defines '" + token.text + "'" + Nearest(token.text, known)});
    }
  }
  return findings;
}

std::vector<Finding> Lint(const FunctionSpec& function, const HostOptions& options,
                          const SampleInput& like) {
  std::vector<Finding> findings;
  if (!function.script.empty()) {
    const Outcome syntax = CheckSyntax(function.path, function.script);
    if (syntax.status != Status::kOk) return {{"syntax", syntax.line, syntax.message}};
    findings = LintText(function.script);
  }
  HostOptions check = options;
  check.functions = {function};
  try {
    RewardHost(std::move(check)).Check();
  } catch (const UserError& error) {
    findings.push_back({"chunk", 0, error.what()});
    return findings;
  }
  RunTrials(function, options, like, &findings);
  return findings;
}

}  // namespace temper::reward
