-- expect: script_error
-- options nested 10,000 deep
function score(s)
  local t = {}
  for i = 1, 10000 do t = {t} end
  return rules.regex('a', nil, {pattern = t}) or 0
end
