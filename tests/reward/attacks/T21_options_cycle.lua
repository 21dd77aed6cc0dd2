-- expect: script_error
-- options that contain themselves
function score(s)
  local t = {}
  t.schema = t
  return rules.json('1', nil, t) or 0
end
