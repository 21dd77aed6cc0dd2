-- expect: timeout|budget
-- counts code points for ever
function score(s)
  local a = ('x'):rep(1 << 22)
  while utf8.len(a) do end
  return 1
end
