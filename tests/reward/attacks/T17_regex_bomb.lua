-- expect: script_error|ok
-- a pattern that needs gigabytes
function score(s)
  return rules.regex(('a'):rep(1000), nil, {pattern = '((a{1,100}){1,100}){1,100}'}) or 0
end
