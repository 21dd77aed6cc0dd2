-- expect: script_error|memory
-- __eq, __lt and __concat that call themselves
function score(s)
  local mt = {}
  mt.__concat = function(a, b) return a .. b end
  local t = setmetatable({}, mt)
  return #(t .. t)
end
