-- expect: invalid_return|budget|memory
-- a table of 100,000 parts
function score(s)
  local t = {score = 1}
  for i = 1, 100000 do t['p' .. i] = i end
  return t
end
