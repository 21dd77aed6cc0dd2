-- expect: budget
-- eight lazy captures
function score(s)
  local s = ('a'):rep(40000)
  s:match(('(.-)'):rep(8) .. 'b')
  return 1
end
