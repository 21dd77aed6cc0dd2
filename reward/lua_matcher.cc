#include "reward/lua_matcher.h"

#include <cctype>
#include <cstring>

#include "reward/lua_class.h"
#include "reward/lua_guard.h"

namespace temper::reward {
namespace {

constexpr int kMaxDepth = 200;
constexpr char kEscape = '%';

int Byte(char c) { return static_cast<unsigned char>(c); }

}  // namespace

void Matcher::Settle() {
  const std::int64_t steps = steps_;
  steps_ = 0;
  Charge(state_, steps / kStepsAnInstruction);
}

void Matcher::PushCapture(int i, const char* s, const char* e) {
  if (i >= captures_) {
    if (i != 0) luaL_error(state_, "invalid capture index %%%d", i + 1);
    lua_pushlstring(state_, s, static_cast<std::size_t>(e - s));
    return;
  }
  const Capture& capture = capture_[i];
  if (capture.length == kUnclosed) luaL_error(state_, "unfinished capture");
  if (capture.length == kPosition) {
    lua_pushinteger(state_, capture.begin - begin_ + 1);
  } else {
    lua_pushlstring(state_, capture.begin, static_cast<std::size_t>(capture.length));
  }
}

int Matcher::PushCaptures(const char* s, const char* e) {
  const int count = captures_ == 0 && s != nullptr ? 1 : captures_;
  luaL_checkstack(state_, count, "too many captures");
  for (int i = 0; i < count; ++i) PushCapture(i, s, e);
  return count;
}

const char* Matcher::At(const char* s) {
  captures_ = 0;
  depth_ = 0;
  return Match(s, pattern_);
}

const char* Matcher::ClassEnd(const char* p) {
  if (p == pattern_end_) luaL_error(state_, "malformed pattern (missing)");
  const char c = *p++;
  if (c == kEscape) {
    if (p == pattern_end_) luaL_error(state_, "malformed pattern (ends with '%%')");
    return p + 1;
  }
  if (c != '[') return p;
  if (p != pattern_end_ && *p == '^') ++p;
  do {  // a ']' that comes first is a character
    if (p == pattern_end_) luaL_error(state_, "malformed pattern (missing ']')");
    if (*p++ == kEscape && p < pattern_end_) ++p;
  } while (p == pattern_end_ || *p != ']');
  return p + 1;
}

/// `p` at '[', `last` at ']'.
bool Matcher::InSet(int c, const char* p, const char* last) {
  Step(last - p);
  bool found = true;
  if (p[1] == '^') {
    found = false;
    ++p;
  }
  while (++p < last) {
    if (*p == kEscape) {
      ++p;
      if (InClass(c, Byte(*p))) return found;
    } else if (p[1] == '-' && p + 2 < last) {
      p += 2;
      if (Byte(p[-2]) <= c && c <= Byte(*p)) return found;
    } else if (Byte(*p) == c) {
      return found;
    }
  }
  return !found;
}

bool Matcher::Single(const char* s, const char* p, const char* after) {
  Step();
  if (s >= end_) return false;
  const int c = Byte(*s);
  switch (*p) {
    case '.':
      return true;
    case kEscape:
      return InClass(c, Byte(p[1]));
    case '[':
      return InSet(c, p, after - 1);
    default:
      return Byte(*p) == c;
  }
}

const char* Matcher::Balanced(const char* s, const char* p) {
  if (p + 1 >= pattern_end_) luaL_error(state_, "malformed pattern (missing arguments to '%%b')");
  if (s >= end_ || *s != *p) return nullptr;
  const char open = *p, close = p[1];
  std::int64_t depth = 1;
  while (++s < end_) {
    Step();
    if (*s == close) {
      if (--depth == 0) return s + 1;
    } else if (*s == open) {
      ++depth;
    }
  }
  return nullptr;
}

const char* Matcher::Longest(const char* s, const char* p, const char* after) {
  std::ptrdiff_t count = 0;
  while (Single(s + count, p, after)) ++count;
  for (; count >= 0; --count) {
    const char* const end = Match(s + count, after + 1);
    if (end != nullptr) return end;
  }
  return nullptr;
}

const char* Matcher::Shortest(const char* s, const char* p, const char* after) {
  while (true) {
    const char* const end = Match(s, after + 1);
    if (end != nullptr) return end;
    if (!Single(s, p, after)) return nullptr;
    ++s;
  }
}

const char* Matcher::Open(const char* s, const char* p, std::ptrdiff_t length) {
  if (captures_ >= kMaxCaptures) luaL_error(state_, "too many captures");
  capture_[captures_++] = {s, length};
  const char* const end = Match(s, p);
  if (end == nullptr) --captures_;
  return end;
}

const char* Matcher::Close(const char* s, const char* p) {
  int open = captures_ - 1;
  while (open >= 0 && capture_[open].length != kUnclosed) --open;
  if (open < 0) luaL_error(state_, "invalid pattern capture");
  capture_[open].length = s - capture_[open].begin;
  const char* const end = Match(s, p);
  if (end == nullptr) capture_[open].length = kUnclosed;
  return end;
}

int Matcher::CaptureIndex(int name) {
  const int index = name - '1';
  if (index < 0 || index >= captures_ || capture_[index].length == kUnclosed) {
    luaL_error(state_, "invalid capture index %%%d", index + 1);
  }
  return index;
}

const char* Matcher::Again(const char* s, int name) {
  const Capture& capture = capture_[CaptureIndex(name)];
  if (capture.length < 0) return nullptr;  // a position has no text
  const std::ptrdiff_t length = capture.length;
  Step(1 + length / kBytesAnInstruction);
  if (end_ - s < length || std::memcmp(capture.begin, s, static_cast<std::size_t>(length)) != 0) {
    return nullptr;
  }
  return s + length;
}

bool Matcher::Frontier(const char* s, const char* p, const char* after) {
  const int before = s == begin_ ? 0 : Byte(s[-1]), here = s == end_ ? 0 : Byte(*s);
  return !InSet(before, p, after - 1) && InSet(here, p, after - 1);
}

const char* Matcher::Match(const char* s, const char* p) {
  if (++depth_ > kMaxDepth) luaL_error(state_, "pattern too complex");
  const char* const end = MatchHere(s, p);
  --depth_;
  return end;
}

/// Handles what is no single character with a suffix. *done: the answer is returned; otherwise go
/// on at *s and *p.
const char* Matcher::MatchItem(const char** s, const char** p, bool* done) {
  *done = true;
  switch (**p) {
    case '(':
      if (*p + 1 < pattern_end_ && (*p)[1] == ')') return Open(*s, *p + 2, kPosition);
      return Open(*s, *p + 1, kUnclosed);
    case ')':
      return Close(*s, *p + 1);
    case '$':
      if (*p + 1 == pattern_end_) return *s == end_ ? *s : nullptr;
      break;
    case kEscape: {
      if (*p + 1 == pattern_end_) break;
      const char name = (*p)[1];
      if (name == 'b' || std::isdigit(Byte(name))) {
        *s = name == 'b' ? Balanced(*s, *p + 2) : Again(*s, Byte(name));
        if (*s == nullptr) return nullptr;
        *p += name == 'b' ? 4 : 2;
        *done = false;
        return *s;
      }
      if (name == 'f') {
        const char* const set = *p + 2;
        if (set == pattern_end_ || *set != '[') {
          luaL_error(state_, "missing '[' after '%%f' in pattern");
        }
        const char* const after = ClassEnd(set);
        if (!Frontier(*s, set, after)) return nullptr;
        *p = after;
        *done = false;
        return *s;
      }
      break;
    }
    default:
      break;
  }
  *done = false;
  return nullptr;
}

const char* Matcher::MatchHere(const char* s, const char* p) {
  while (p != pattern_end_) {
    Step();
    bool done = false;
    const char* const there = MatchItem(&s, &p, &done);
    if (done) return there;
    if (there != nullptr) continue;
    const char* const after = ClassEnd(p);
    const char suffix = after == pattern_end_ ? '\0' : *after;
    switch (suffix) {
      case '?':
        if (Single(s, p, after)) {
          const char* const end = Match(s + 1, after + 1);
          if (end != nullptr) return end;
        }
        p = after + 1;
        continue;
      case '+':
        return Single(s, p, after) ? Longest(s + 1, p, after) : nullptr;
      case '*':
        return Longest(s, p, after);
      case '-':
        return Shortest(s, p, after);
      default:
        if (!Single(s, p, after)) return nullptr;
        ++s;
        p = after;
    }
  }
  return s;
}

}  // namespace temper::reward
