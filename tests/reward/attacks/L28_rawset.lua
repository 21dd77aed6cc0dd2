-- expect: ok=1
-- every way to write into a library is refused
function score(s)
  for _, library in ipairs({string, table, math, utf8, rules}) do
    if pcall(rawset, library, 'x', 1) then return 0 end
    if pcall(setmetatable, library, {}) then return 0 end
    if pcall(table.insert, library, 1) then return 0 end
    if pcall(table.move, {1}, 1, 1, 1, library) then return 0 end
    if pcall(table.sort, library) then return 0 end
    if pcall(function() library.x = 1 end) then return 0 end
    if library.x ~= nil or rawget(library, 1) ~= nil then return 0 end
    if getmetatable(library) ~= 'locked' then return 0 end
  end
  return getmetatable('') == 'locked' and 1 or 0
end
