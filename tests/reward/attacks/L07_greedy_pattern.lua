-- expect: budget
-- six greedy stars
function score(s)
  return #(('a'):rep(3000):match('a*a*a*a*a*a*b') or '')
end
