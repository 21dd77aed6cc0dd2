-- expect: timeout|budget
-- compares two long equal strings for ever
function score(s)
  local a, b = ('x'):rep(1 << 22), ('x'):rep(1 << 22)
  while a == b do end
  return 1
end
