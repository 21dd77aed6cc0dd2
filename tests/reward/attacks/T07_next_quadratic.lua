-- expect: budget
-- next() over a large table, one key at a time
function score(s)
  local t = {}
  for i = 1, 50000 do t['k' .. i] = i end
  local k
  repeat k = next(t, k) until k == nil
  return 1
end
