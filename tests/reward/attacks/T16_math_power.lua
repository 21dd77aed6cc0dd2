-- expect: ok
-- a tower of powers
function score(s)
  return rules.math('\\boxed{9^{9^{9^{9^{9}}}}}', '1') or 0
end
