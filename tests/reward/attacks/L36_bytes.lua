-- expect: ok=1
-- the completion stays data
function score(s)
  local c = s.completion
  return #c == utf8 and 0 or (type(c) == 'string' and #c > 0) and 1 or 0
end
