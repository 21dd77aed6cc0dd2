-- expect: budget
-- frontier and balance patterns on a long text
function score(s)
  local s = ('(a'):rep(50000)
  return #(s:match('%f[%w].-%b().-%b()x') or '')
end
