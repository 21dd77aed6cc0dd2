-- expect: ok|memory|budget|timeout
-- a chain of weak keys for the collector to walk
function score(s)
  local t = setmetatable({}, {__mode = 'k'})
  local first = {}
  local key = first
  for i = 1, 100000 do local next_key = {}; t[key] = next_key; key = next_key end
  return 1
end
