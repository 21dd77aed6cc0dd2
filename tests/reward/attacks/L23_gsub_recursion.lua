-- expect: script_error
-- gsub callbacks inside one another
function score(s)
  local function f() return (('x'):gsub('x', f)) end
  return f()
end
