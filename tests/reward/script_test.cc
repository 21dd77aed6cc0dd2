// How scripts end, what they cannot swallow and what they cannot reach.
#include "tests/reward/fixtures.h"

namespace temper::reward {
namespace {

TEST(Script, NamesEveryWayAScriptCanEnd) {
  EXPECT_EQ(StatusOf("function score() return 0 end"), "ok");
  EXPECT_EQ(StatusOf("function score() return nil end"), "not_applicable");
  EXPECT_EQ(StatusOf("function score() error('no') end"), "script_error");
  EXPECT_EQ(StatusOf("function score() error({}) end"), "script_error");
  EXPECT_EQ(StatusOf("function score("), "script_error");
  EXPECT_EQ(StatusOf("x = 1"), "script_error");
  EXPECT_EQ(StatusOf("function score() while true do end end"), "budget");
  EXPECT_EQ(StatusOf("while true do end"), "budget");
  EXPECT_EQ(StatusOf("function score() local s = 'x' while true do s = s .. s end end"), "memory");
  EXPECT_EQ(StatusOf("function score() return 0/0 end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return 1/0 end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return '1' end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return true end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return {} end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return {score = '1'} end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return {score = 1, part = 0/0} end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() end"), "invalid_return");
}

TEST(Script, SaysTheLineOfAnError) {
  ScoreResult result = ScoreOne("function score(s)\n  local x = nil\n  return x.y\nend");
  EXPECT_EQ(result.parts[0].line, 3);
  EXPECT_EQ(result.parts[0].message, "attempt to index a nil value (local 'x')");
  result = ScoreOne("function score(s)\n  while true do\n  end\nend");
  EXPECT_EQ(result.parts[0].message, "more than 1000000 instructions");
  EXPECT_TRUE(result.parts[0].line == 2 || result.parts[0].line == 3) << result.parts[0].line;
  result = ScoreOne("function score(s)\n\n  return = 1\nend");
  EXPECT_EQ(result.parts[0].line, 3);
  result = ScoreOne("function score(s) error('\\xff\\xfe bad', 0) end");
  EXPECT_EQ(result.parts[0].message, "\xEF\xBF\xBD\xEF\xBF\xBD bad");
}

TEST(Script, LetsNoScriptSwallowItsLimits) {
  EXPECT_EQ(StatusOf("function score()\n"
                     "  while true do pcall(function() while true do end end) end\n"
                     "end"),
            "budget");
  EXPECT_EQ(StatusOf("function score()\n"
                     "  local function h() while true do end end\n"
                     "  while true do xpcall(function() while true do end end, h) end\n"
                     "end"),
            "budget");
  EXPECT_EQ(StatusOf("function score()\n"
                     "  pcall(function() while true do end end)\n"
                     "  return 1\n"
                     "end"),
            "budget");
  EXPECT_EQ(StatusOf("function score()\n"
                     "  pcall(function() local t = {} for i = 1, 1e9 do t[i] = 'x' .. i end end)\n"
                     "  return 1\n"
                     "end"),
            "budget");
  EXPECT_EQ(StatusOf("function score()\n"
                     "  pcall(function() local s = ('x'):rep(1000000)\n"
                     "    local t = {} while true do t[#t + 1] = s .. #t end end)\n"
                     "  return 1\n"
                     "end"),
            "memory");
  EXPECT_EQ(StatusOf("function score() return #('x'):rep(1 << 40) end"), "script_error");
  EXPECT_EQ(StatusOf("function score() return #(''):rep(1 << 62) end"), "script_error");
  EXPECT_EQ(StatusOf("function score() setmetatable({}, {__gc = function() end}) end"),
            "script_error");
}

TEST(Script, HasNothingOfTheOutsideInAScript) {
  for (const char* name :
       {"io", "os", "debug", "package", "require", "load", "loadstring", "loadfile", "dofile",
        "collectgarbage", "print", "coroutine", "string.dump", "_G.io", "_ENV.os", "arg"}) {
    EXPECT_EQ(
        ScoreOne(std::string("function score() return ") + name + " == nil and 1 or 0 end").score,
        1.0)
        << name;
  }
  EXPECT_EQ(StatusOf("function score() getmetatable('').__index.rep = nil return 1 end"),
            "script_error");
  EXPECT_EQ(ScoreOne("function score(s) return tostring(s) == 'table' and "
                     "('%s'):format(print or s) == 'table' and 1 or 0 end")
                .score,
            1.0);
  EXPECT_EQ(StatusOf("function score(s) return ('%5p'):format(s) end"), "script_error");
}

TEST(Script, TakesOnlyTextAsAScript) {
  EXPECT_EQ(StatusOf("\x1bLua"), "script_error");
  EXPECT_EQ(StatusOf(std::string(70000, ' ')), "script_error");
}

}  // namespace
}  // namespace temper::reward
