// Our patterns and table functions beside those of Lua's own library, on the same random arguments.
#include <gtest/gtest.h>

#include "reward/lua_guard.h"
#include "reward/lua_pairs.h"
#include "reward/lua_pattern.h"
#include "reward/lua_table.h"

namespace temper::reward {
namespace {

/// Lua's own libraries, and ours as the globals `ours_string` and `ours_table`.
class BothLibraries : public testing::Test {
 protected:
  BothLibraries() : arena_(std::size_t{256} << 20) {
    guard_.arena = &arena_;
    guard_.memory_cap = std::size_t{128} << 20;
    guard_.max_instructions = std::int64_t{1} << 50;
    state_ = NewState(guard_);
    luaL_openlibs(state_);
    lua_newtable(state_);
    OpenPatterns(state_);
    lua_setglobal(state_, "ours_string");
    PushTableLibrary(state_);
    lua_setglobal(state_, "ours_table");
  }

  void Run(const char* chunk) {
    if (luaL_dostring(state_, chunk) != LUA_OK) FAIL() << lua_tostring(state_, -1);
  }

  Arena arena_;
  Guard guard_;
  lua_State* state_ = nullptr;
};

constexpr char kSame[] = R"lua(
  math.randomseed(7)
  local function text(alphabet, most)
    local t = {}
    for i = 1, math.random(0, most) do
      local k = math.random(#alphabet)
      t[i] = alphabet:sub(k, k)
    end
    return table.concat(t)
  end
  local items = {"a", "b", ".", "%a", "%d", "%s", "%w", "%W", "%p", "%x", "[ab]", "[^a]", "[a-c%d]",
                 "[]a]", "[^]-]", "[a-]", "%%", "%.", "%f[%w]", "%f[^a]", "%b()", "%bab", "()", "(", ")",
                 "%1", "%2", "^", "$", "-", "*", "+", "?", "%", "[", "c", " "}
  local suffix = {"", "", "", "*", "+", "-", "?"}
  local function pattern()
    local t = {}
    for i = 1, math.random(1, 6) do
      t[#t + 1] = items[math.random(#items)] .. suffix[math.random(#suffix)]
      if math.random(4) == 1 then t[#t + 1] = "(" .. items[math.random(12)] .. suffix[math.random(#suffix)] .. ")" end
    end
    return table.concat(t)
  end
  local function pack(...)
    local n, t = select("#", ...), {...}
    for i = 1, n do t[i] = tostring(t[i]) end
    return n .. ":" .. table.concat(t, "\1")
  end
  -- Messages name the function that was called; the library's own may differ in detail.
  local function try(f, ...)
    local r = table.pack(pcall(f, ...))
    if not r[1] then return "error" end
    return pack(table.unpack(r, 1, r.n))
  end
  local function all(gmatch, s, p)
    local t = {}
    for a, b, c in gmatch(s, p) do
      t[#t + 1] = pack(a, b, c)
      if #t > 50 then break end
    end
    return table.concat(t, "\2")
  end
  local replacements = {"<%0>", "%1", "x", "%%", "", "%2%1", "%", {a = "A", b = false, ab = 7},
                        function(a, b) return b end, function(a) return a and #a > 1 and a:upper() end}
  local checked, matched = 0, 0
  for i = 1, 60000 do
    local s, p = text("aabbc1 (.)-%]", 12), pattern()
    local init = math.random(-3, 8)
    local r = replacements[math.random(#replacements)]
    local n = math.random(3) == 1 and math.random(0, 2) or nil
    local cases = {
      {"find", try(string.find, s, p, init), try(ours_string.find, s, p, init)},
      {"plain", try(string.find, s, p, init, true), try(ours_string.find, s, p, init, true)},
      {"match", try(string.match, s, p, init), try(ours_string.match, s, p, init)},
      {"gsub", try(string.gsub, s, p, r, n), try(ours_string.gsub, s, p, r, n)},
      {"gmatch", try(all, string.gmatch, s, p), try(all, ours_string.gmatch, s, p)},
    }
    for _, case in ipairs(cases) do
      checked = checked + 1
      if case[2] ~= "error" and case[2] ~= "2:true\1nil" then matched = matched + 1 end
      if case[2] ~= case[3] then
        error(("%s(%q, %q, %s): %q, ours %q"):format(case[1], s, p, tostring(init), case[2], case[3]))
      end
    end
  end
  assert(checked == 300000 and matched > 100000, matched)
)lua";

TEST_F(BothLibraries, MatchPatternsAlike) { Run(kSame); }

TEST_F(BothLibraries, ChangeTablesAlike) {
  Run(R"lua(
    math.randomseed(11)
    local function show(t)
      local s = {}
      for i = 1, #t do s[i] = tostring(t[i]) end
      return #t .. ":" .. table.concat(s, ",")
    end
    for round = 1, 3000 do
      local a, b = {}, {}
      for i = 1, math.random(0, 9) do
        local x = math.random(9)
        a[i], b[i] = x, x
      end
      for step = 1, 6 do
        local i, j, k, x = math.random(-1, 11), math.random(-1, 11), math.random(1, 6), math.random(9)
        local kind = math.random(7)
        local function both(name, ...)
          local one, two = table.pack(pcall(table[name], a, ...)), table.pack(pcall(ours_table[name], b, ...))
          assert(one[1] == two[1], name .. " " .. i .. " " .. j .. ": " .. tostring(one[2]) .. " / " .. tostring(two[2]))
          if not one[1] or type(one[2]) == "table" then return end
          assert(show(one) == show(two), name .. ": " .. show(one) .. " / " .. show(two))
        end
        if kind == 1 then both("insert", x) elseif kind == 2 then both("insert", i, x)
        elseif kind == 3 then both("remove") elseif kind == 4 then both("remove", i)
        elseif kind == 5 then both("concat", "-", i, j)
        elseif kind == 6 then both("unpack", i, j)
        else both("move", math.max(1, i), math.min(j, #a), math.min(k, #a + 1)) end
        assert(show(a) == show(b), kind .. ": " .. show(a) .. " / " .. show(b))
      end
      ours_table.sort(b)
      table.sort(a)
      assert(show(a) == show(b))
      ours_table.sort(b, function(x, y) return x > y end)
      table.sort(a, function(x, y) return x > y end)
      assert(show(a) == show(b))
    end
    local p = ours_table.pack(1, nil, 3)
    assert(p.n == 3 and p[3] == 3 and p[2] == nil)
  )lua");
}

TEST_F(BothLibraries, SortKeepsTheOrderOfEquals) {
  Run(R"lua(
    math.randomseed(3)
    for round = 1, 200 do
      local t = {}
      for i = 1, math.random(0, 60) do t[i] = {key = math.random(5), place = i} end
      ours_table.sort(t, function(a, b) return a.key < b.key end)
      for i = 2, #t do
        assert(t[i - 1].key < t[i].key or (t[i - 1].key == t[i].key and t[i - 1].place < t[i].place))
      end
    end
    assert(not pcall(ours_table.sort, {1, 2, 3}, function() return true end))
    assert(not pcall(ours_table.sort, {1, "a", 3}))
  )lua");
}

TEST_F(BothLibraries, PairsWalksInOneOrderAndAllowsRemoval) {
  lua_register(state_, "pairs", Pairs);
  lua_register(state_, "next", Next);
  Run(R"lua(
    local t = {b = 1, a = 2, [3] = 3, [1] = 4, [2.5] = 5, [-1] = 6, [true] = 7, [false] = 8}
    local order = {}
    for k in pairs(t) do order[#order + 1] = tostring(k) end
    assert(table.concat(order, " ") == "-1 1 2.5 3 a b false true", table.concat(order, " "))
    order = {}
    for k in next, t do order[#order + 1] = tostring(k) end
    assert(table.concat(order, " ") == "-1 1 2.5 3 a b false true")
    local left = 0
    for k, v in pairs(t) do
      t.b, t[true] = nil, nil
      left = left + v
    end
    assert(left == 2 + 3 + 4 + 5 + 6 + 8)
    assert(next({}) == nil and not pcall(pairs, nil) and not pcall(next, 1))
    local seen
    for k, v in pairs(setmetatable({}, {__pairs = function() return function(_, k) if not k then return 1, 2 end end end})) do seen = v end
    assert(seen == 2)
  )lua");
}

}  // namespace
}  // namespace temper::reward
