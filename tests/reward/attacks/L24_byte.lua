-- expect: script_error
-- ten million results of string.byte
function score(s)
  local s = ('x'):rep(10000000)
  return select('#', s:byte(1, -1))
end
