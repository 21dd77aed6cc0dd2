-- expect: ok|script_error|memory|budget
-- pcall inside pcall inside pcall
function score(s)
  local function f() return pcall(f) end
  f()
  return 1
end
