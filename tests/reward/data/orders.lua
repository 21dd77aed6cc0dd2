-- Gives a number that hangs on every order, draw and spelling that could differ from process to process.
local keys = {}
for i = 1, 40 do keys[i] = {} end
function score(s)
  local t, order = {}, {}
  for i, key in ipairs(keys) do t[key] = i end
  for i = 1, 40 do t['name' .. i * 7919 % 97] = 100 + i; t[i / 4] = 200 + i; t[{}] = 300 + i end
  t[true], t[false], t[score], t[math.sin] = 401, 402, 403, 404
  for _, value in pairs(t) do order[#order + 1] = value end
  local hash = 0
  for i, value in ipairs(order) do hash = (hash * 31 + value) % 1000000007 end
  for key, value in next, t do hash = (hash * 31 + value) % 1000000007 end
  for i = 1, 10 do hash = (hash * 31 + math.random(1000)) % 1000000007 end
  for _, word in ipairs({tostring(t), tostring(1 / 3), tostring(2^53), ('%.3f'):format(0.0005)}) do
    for i = 1, #word do hash = (hash * 31 + word:byte(i)) % 1000000007 end
  end
  return hash
end
