#pragma once
// One text against one of Lua's patterns, each step counted.
#include <cstdint>
#include <lua.hpp>
#include <string_view>

namespace temper::reward {

/// One text against one pattern. Backtracking as in the manual: shortest or longest first, in
/// order.
class Matcher {
 public:
  Matcher(lua_State* state, std::string_view text, std::string_view pattern)
      : state_(state),
        begin_(text.data()),
        end_(text.data() + text.size()),
        pattern_(pattern.data()),
        pattern_end_(pattern.data() + pattern.size()) {}

  /// The end of the match that begins at `s`, null if there is none.
  const char* At(const char* s);
  /// Counts what is not counted yet.
  void Settle();

  /// Pushes capture i, or the whole match where the pattern has none.
  void PushCapture(int i, const char* s, const char* e);
  /// Pushes all captures; the whole match if there are none and `s` is given.
  int PushCaptures(const char* s, const char* e);

  const char* begin() const { return begin_; }
  const char* end() const { return end_; }

 private:
  static constexpr int kMaxCaptures = 32;
  static constexpr std::int64_t kStepsAtOnce = 4096;  // between two charges
  static constexpr std::ptrdiff_t kUnclosed = -1, kPosition = -2;
  struct Capture {
    const char* begin = nullptr;
    std::ptrdiff_t length = 0;
  };

  void Step(std::int64_t count = 1) {
    steps_ += count;
    if (steps_ >= kStepsAtOnce) Settle();
  }
  const char* ClassEnd(const char* p);
  bool InSet(int c, const char* p, const char* last);
  bool Single(const char* s, const char* p, const char* after);
  const char* Balanced(const char* s, const char* p);
  const char* Longest(const char* s, const char* p, const char* after);
  const char* Shortest(const char* s, const char* p, const char* after);
  const char* Open(const char* s, const char* p, std::ptrdiff_t length);
  const char* Close(const char* s, const char* p);
  const char* Again(const char* s, int name);
  int CaptureIndex(int name);
  bool Frontier(const char* s, const char* p, const char* after);
  const char* Match(const char* s, const char* p);
  const char* MatchHere(const char* s, const char* p);
  const char* MatchItem(const char** s, const char** p, bool* done);

  lua_State* state_;
  const char *begin_, *end_, *pattern_, *pattern_end_;
  std::int64_t steps_ = 0;
  int captures_ = 0, depth_ = 0;
  Capture capture_[kMaxCaptures];
};

}  // namespace temper::reward
