-- expect: script_error|ok
-- a pattern of 1 MB
function score(s)
  return rules.regex('a', nil, {pattern = ('(a|b)*'):rep(150000)}) or 0
end
