#pragma once
// The hostile scripts of tests/reward/attacks and the honest ones they run among.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace temper::reward {

struct Attack {
  std::string name, script;
  std::vector<std::string> expect;  // statuses that are right; "ok=1" is ok with that score
};

/// "-- expect: budget|timeout" is the first line of each file.
inline std::vector<Attack> Attacks(const std::string& folder) {
  std::vector<Attack> attacks;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path());
    std::stringstream text;
    text << file.rdbuf();
    Attack attack{entry.path().stem().string(), text.str(), {}};
    const std::string head = "-- expect: ";
    std::istringstream expected(
        attack.script.substr(head.size(), attack.script.find('\n') - head.size()));
    for (std::string status; std::getline(expected, status, '|');) attack.expect.push_back(status);
    attacks.push_back(attack);
  }
  // Too long to keep as files.
  const std::string open(30000, '('), close(30000, ')');
  attacks.push_back({"L22_parens", "return " + open + "1" + close, {"script_error"}});
  std::string sum = "function score() return 1";
  for (int i = 0; i < 29000; ++i) sum += "+1";
  attacks.push_back({"L22_sum", sum + " end", {"ok", "script_error"}});
  attacks.push_back({"L22_long", std::string(70000, ' '), {"script_error"}});
  std::sort(attacks.begin(), attacks.end(),
            [](const Attack& a, const Attack& b) { return a.name < b.name; });
  return attacks;
}

inline bool Expects(const Attack& attack, const std::string& status) {
  return std::find(attack.expect.begin(), attack.expect.end(), status) != attack.expect.end();
}

/// On a slow machine the clock may come before the count of instructions or bytes.
inline bool EndedByTheClock(const Attack& attack, const std::string& status) {
  return status == "timeout" && (Expects(attack, "budget") || Expects(attack, "memory"));
}

inline bool Expected(const Attack& attack, const std::string& status, double score) {
  for (const std::string& right : attack.expect) {
    if (right == status) return true;
    if (right == "ok=1" && status == "ok" && score == 1.0) return true;
  }
  return false;
}

// What an honest function gives for the completion "42" of the fixtures.
inline const char* const kHonestScript =
    "function score(s)\n"
    "  local n = 0\n"
    "  for word in s.completion:gmatch('%d') do n = n + tonumber(word) end\n"
    "  return {score = n / 8, part = #s.completion}\n"
    "end";
constexpr double kHonestScore = 0.75;

}  // namespace temper::reward
