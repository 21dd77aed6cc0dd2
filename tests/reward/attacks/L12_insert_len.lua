-- expect: ok=1
-- table.insert and remove with a lying __len
function score(s)
  local t = setmetatable({}, {__len = function() return math.maxinteger - 1 end})
  table.insert(t, 1, 'x')
  return table.remove(t, 1) == 'x' and 1 or 0
end
