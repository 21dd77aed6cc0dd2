-- expect: ok=1
-- removes score() while it runs
function score(s)
  score = nil
  _G.score = nil
  return 1
end
