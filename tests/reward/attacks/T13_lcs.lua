-- expect: budget|timeout
-- a rule on two texts of 1 MB
function score(s)
  local a = ('ab'):rep(500000)
  return rules.lcs_ratio(a, a)
end
