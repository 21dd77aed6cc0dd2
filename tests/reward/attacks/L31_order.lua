-- expect: ok=1
-- Orders that differ from process to process: string keys by their hashes, tables by their addresses.
function score()
  local t, objects = {}, {}
  for i = 1, 50 do objects[i] = {} end
  for i = 50, 1, -1 do t[objects[i]], t['k' .. i], t[i / 8] = i, i, i end
  local order = {}
  for key, value in pairs(t) do order[#order + 1] = type(key):sub(1, 1) .. value end
  for key, value in next, t do
    if table.remove(order, 1) ~= type(key):sub(1, 1) .. value then return 0 end
    order[#order + 1] = type(key):sub(1, 1) .. value
  end
  local wanted = {}
  for i = 1, 50 do wanted[i] = 'n' .. i end
  local names = {}
  for i = 1, 50 do names[i] = 'k' .. i end
  table.sort(names)
  for _, name in ipairs(names) do wanted[#wanted + 1] = 's' .. name:sub(2) end
  for i, item in ipairs(wanted) do if order[i] ~= item then return 0 end end
  for i = #wanted + 1, #order do if order[i]:sub(1, 1) ~= 't' then return 0 end end
  return #order == 150 and 1 or 0
end
