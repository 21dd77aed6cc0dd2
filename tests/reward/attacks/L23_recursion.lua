-- expect: script_error|memory|budget
-- endless recursion
function score(s)
  local function f() return 1 + f() end
  return f()
end
