-- expect: ok|script_error|budget
-- a formula of 100,000 brackets
function score(s)
  return rules.math('\\boxed{' .. ('('):rep(100000) .. '1' .. (')'):rep(100000) .. '}', '1') or 0
end
