-- expect: script_error|budget|memory
-- __tostring that calls tostring
function score(s)
  local t = setmetatable({}, {})
  getmetatable(t).__tostring = function(x) return tostring(x) end
  return #tostring(t)
end
