#include "reward/lua_pattern.h"

#include <cctype>
#include <cstring>
#include <string_view>

#include "reward/lua_guard.h"
#include "reward/lua_matcher.h"

namespace temper::reward {
namespace {

constexpr char kEscape = '%';
constexpr std::string_view kSpecials = "^$*+?.([%-";

int Byte(char c) { return static_cast<unsigned char>(c); }

std::string_view CheckText(lua_State* state, int index) {
  std::size_t size = 0;
  const char* const text = luaL_checklstring(state, index, &size);
  return {text, size};
}

/// A start position argument as an offset; past the end gives size + 1.
std::size_t Start(lua_State* state, int index, std::size_t size) {
  const lua_Integer at = luaL_optinteger(state, index, 1);
  const auto n = static_cast<lua_Integer>(size);
  if (at > n + 1) return size + 1;
  if (at > 0) return static_cast<std::size_t>(at - 1);
  return at < -n || at == 0 ? 0 : static_cast<std::size_t>(n + at);
}

/// The library's other way to look: no pattern at all.
int FindPlain(lua_State* state, std::string_view text, std::string_view wanted, std::size_t start) {
  const auto left = static_cast<std::int64_t>(text.size() - start);
  Charge(state, left / kBytesAnInstruction);
  // Two-way search: linear whatever the texts are.
  const void* const found =
      memmem(text.data() + start, text.size() - start, wanted.data(), wanted.size());
  if (found == nullptr) {
    lua_pushnil(state);
    return 1;
  }
  const auto at = static_cast<const char*>(found) - text.data();
  lua_pushinteger(state, at + 1);
  lua_pushinteger(state, at + static_cast<std::ptrdiff_t>(wanted.size()));
  return 2;
}

int FindOrMatch(lua_State* state, bool find) {
  const std::string_view text = CheckText(state, 1);
  std::string_view pattern = CheckText(state, 2);
  const std::size_t start = Start(state, 3, text.size());
  if (start > text.size()) {
    lua_pushnil(state);
    return 1;
  }
  const bool plain =
      lua_toboolean(state, 4) != 0 || pattern.find_first_of(kSpecials) == std::string_view::npos;
  if (find && plain) return FindPlain(state, text, pattern, start);
  const bool anchored = !pattern.empty() && pattern[0] == '^';
  if (anchored) pattern.remove_prefix(1);
  Matcher matcher(state, text, pattern);
  const char* s = text.data() + start;
  do {
    const char* const e = matcher.At(s);
    if (e == nullptr) continue;
    matcher.Settle();
    if (!find) return matcher.PushCaptures(s, e);
    lua_pushinteger(state, s - text.data() + 1);
    lua_pushinteger(state, e - text.data());
    return matcher.PushCaptures(nullptr, nullptr) + 2;
  } while (s++ < matcher.end() && !anchored);
  matcher.Settle();
  lua_pushnil(state);
  return 1;
}

int Find(lua_State* state) { return FindOrMatch(state, true); }
int MatchFirst(lua_State* state) { return FindOrMatch(state, false); }

/// Upvalues: text, pattern, offset of the next look, offset of the last match's end (-1: none).
int GmatchNext(lua_State* state) {
  std::size_t size = 0, pattern_size = 0;
  const char* const text = lua_tolstring(state, lua_upvalueindex(1), &size);
  const char* const pattern = lua_tolstring(state, lua_upvalueindex(2), &pattern_size);
  const lua_Integer last = lua_tointeger(state, lua_upvalueindex(4));
  Matcher matcher(state, {text, size}, {pattern, pattern_size});
  for (const char* s = text + lua_tointeger(state, lua_upvalueindex(3)); s <= matcher.end(); ++s) {
    const char* const e = matcher.At(s);
    if (e == nullptr || e - text == last) continue;
    lua_pushinteger(state, e - text);
    lua_copy(state, -1, lua_upvalueindex(3));
    lua_replace(state, lua_upvalueindex(4));
    matcher.Settle();
    return matcher.PushCaptures(s, e);
  }
  matcher.Settle();
  lua_pushinteger(state, static_cast<lua_Integer>(size) + 1);
  lua_replace(state, lua_upvalueindex(3));
  return 0;
}

int Gmatch(lua_State* state) {
  const std::size_t size = CheckText(state, 1).size();
  CheckText(state, 2);
  const std::size_t start = Start(state, 3, size);
  lua_settop(state, 2);
  lua_pushinteger(state, static_cast<lua_Integer>(start));
  lua_pushinteger(state, -1);
  lua_pushcclosure(state, GmatchNext, 4);
  return 1;
}

/// Appends the replacement text with its %0 to %9.
void AddText(lua_State* state, Matcher& matcher, luaL_Buffer* out, const char* s, const char* e) {
  std::size_t size = 0;
  const char* const news = lua_tolstring(state, 3, &size);
  for (std::size_t i = 0; i < size; ++i) {
    if (news[i] != kEscape) {
      luaL_addchar(out, news[i]);
      continue;
    }
    if (++i == size || (news[i] != kEscape && !std::isdigit(Byte(news[i])))) {
      luaL_error(state, "invalid use of '%%' in replacement string");
    }
    if (news[i] == kEscape) {
      luaL_addchar(out, kEscape);
    } else if (news[i] == '0') {
      luaL_addlstring(out, s, static_cast<std::size_t>(e - s));
    } else {
      matcher.PushCapture(news[i] - '1', s, e);
      luaL_tolstring(state, -1, nullptr);  // a position is a number
      lua_remove(state, -2);
      luaL_addvalue(out);
    }
  }
}

/// Appends what the third argument makes of a match.
void AddReplacement(lua_State* state, Matcher& matcher, luaL_Buffer* out, const char* s,
                    const char* e) {
  switch (lua_type(state, 3)) {
    case LUA_TFUNCTION: {
      lua_pushvalue(state, 3);
      const int count = matcher.PushCaptures(s, e);
      matcher.Settle();
      lua_call(state, count, 1);
      break;
    }
    case LUA_TTABLE:
      matcher.PushCapture(0, s, e);
      lua_gettable(state, 3);
      break;
    default:
      return AddText(state, matcher, out, s, e);
  }
  if (lua_toboolean(state, -1) == 0) {
    lua_pop(state, 1);
    lua_pushlstring(state, s, static_cast<std::size_t>(e - s));
  } else if (lua_isstring(state, -1) == 0) {
    luaL_error(state, "invalid replacement value (a %s)", luaL_typename(state, -1));
  }
  luaL_addvalue(out);
}

int Gsub(lua_State* state) {
  const std::string_view text = CheckText(state, 1);
  std::string_view pattern = CheckText(state, 2);
  const int type = lua_type(state, 3);
  luaL_argexpected(
      state,
      type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE, 3,
      "string/function/table");
  if (type == LUA_TNUMBER) lua_tolstring(state, 3, nullptr);
  const lua_Integer most = luaL_optinteger(state, 4, static_cast<lua_Integer>(text.size()) + 1);
  const bool anchored = !pattern.empty() && pattern[0] == '^';
  if (anchored) pattern.remove_prefix(1);
  lua_settop(state, 3);
  Matcher matcher(state, text, pattern);
  luaL_Buffer out;
  luaL_buffinit(state, &out);
  const char *s = text.data(), *last = nullptr;
  lua_Integer count = 0;
  while (count < most) {
    const char* const e = matcher.At(s);
    if (e != nullptr && e != last) {
      ++count;
      AddReplacement(state, matcher, &out, s, e);
      s = last = e;
    } else if (s < matcher.end()) {
      luaL_addchar(&out, *s);
      ++s;
    } else {
      break;
    }
    if (anchored) break;
  }
  matcher.Settle();
  luaL_addlstring(&out, s, static_cast<std::size_t>(matcher.end() - s));
  luaL_pushresult(&out);
  lua_pushinteger(state, count);
  return 2;
}

}  // namespace

void OpenPatterns(lua_State* state) {
  constexpr luaL_Reg kFunctions[] = {{"find", Find},
                                     {"match", MatchFirst},
                                     {"gmatch", Gmatch},
                                     {"gsub", Gsub},
                                     {nullptr, nullptr}};
  luaL_setfuncs(state, kFunctions, 0);
}

}  // namespace temper::reward
