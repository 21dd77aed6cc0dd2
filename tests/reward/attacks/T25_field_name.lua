-- expect: invalid_return
-- a part with a name of 1 MB
function score(s)
  return {score = 1, [('x'):rep(1000000)] = 1}
end
