-- expect: budget
-- a find that is quadratic
function score(s)
  return ('a'):rep(200000):find('.-b') or 0
end
