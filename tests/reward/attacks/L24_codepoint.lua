-- expect: script_error
-- ten million results of utf8.codepoint
function score(s)
  local s = ('x'):rep(10000000)
  return select('#', utf8.codepoint(s, 1, -1))
end
