-- expect: script_error
-- an __index chain that is a ring
function score(s)
  local a, b = {}, {}
  setmetatable(a, {__index = b})
  setmetatable(b, {__index = a})
  return a.x
end
