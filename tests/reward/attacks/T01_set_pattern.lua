-- expect: budget
-- a character set of 30,000 entries against a long text
function score(s)
  local set = '[' .. ('b'):rep(30000) .. ']'
  return (('a'):rep(100000):find(set)) or 0
end
