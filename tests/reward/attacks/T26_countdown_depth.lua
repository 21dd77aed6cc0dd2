-- expect: ok|script_error|budget
-- an expression of 100,000 brackets
function score(s)
  return rules.countdown(('('):rep(100000) .. '1', nil, {numbers = {1}, target = 1}) or 0
end
