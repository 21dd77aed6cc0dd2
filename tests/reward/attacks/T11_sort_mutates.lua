-- expect: ok=1
-- a comparison that writes into the table it sorts
function score(s)
  local t = {}
  for i = 1, 200 do t[i] = (i * 37) % 101 end
  table.sort(t, function(a, b) t[1] = {}; t[#t + 1] = 'x'; return a < b end)
  for i = 2, 200 do if t[i - 1] > t[i] then return 0 end end
  return 1
end
