#include "reward/lua_error.h"

#include <algorithm>

#include "reward/sample.h"

namespace temper::reward {

std::string StripPosition(const std::string& name, const std::string& message, int* line) {
  if (message.compare(0, name.size() + 1, name + ":") != 0) return message;
  std::size_t i = name.size() + 1;
  int found = 0;
  while (i < message.size() && message[i] >= '0' && message[i] <= '9' && found < 1000000) {
    found = found * 10 + (message[i++] - '0');
  }
  if (message.compare(i, 2, ": ") != 0) return message;
  if (*line == 0) *line = found;
  return message.substr(i + 2);
}

int HandleError(lua_State* state) {
  auto& outcome = *static_cast<Outcome*>(lua_touserdata(state, lua_upvalueindex(1)));
  lua_Debug frame;
  for (int level = 0; outcome.line == 0 && lua_getstack(state, level, &frame) != 0; ++level) {
    lua_getinfo(state, "l", &frame);
    if (frame.currentline > 0) outcome.line = frame.currentline;
  }
  std::size_t size = 0;
  if (lua_type(state, 1) == LUA_TSTRING) {
    const char* text = lua_tolstring(state, 1, &size);
    outcome.message.assign(text, std::min(size, kMaxMessage));
  } else {
    outcome.message = std::string("error(") + luaL_typename(state, 1) + ")";
  }
  return 1;
}

bool IsMemoryMessage(const std::string& message) {
  return message.find("not enough memory") != std::string::npos ||
         message.find("block too big") != std::string::npos;
}

}  // namespace temper::reward
