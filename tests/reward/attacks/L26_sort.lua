-- expect: script_error
-- an order that contradicts itself
function score(s)
  local t = {}
  for i = 1, 1000 do t[i] = i end
  table.sort(t, function() return true end)
  return 1
end
