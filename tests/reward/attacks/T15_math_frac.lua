-- expect: ok|script_error|budget
-- fractions in fractions in fractions
function score(s)
  return rules.math('\\boxed{' .. ('\\frac{1}{'):rep(300) .. '1' .. ('}'):rep(300) .. '}', '1') or 0
end
