-- expect: ok|script_error
-- select and string indices at the ends of the integers
function score(s)
  pcall(select, math.mininteger, 1)
  local x = ('abc'):sub(math.mininteger, math.maxinteger)
  pcall(string.rep, 'x', math.mininteger)
  pcall(table.concat, {}, '', math.mininteger, math.maxinteger)
  pcall(table.unpack, {}, math.mininteger, math.maxinteger)
  pcall(math.random, math.mininteger, math.maxinteger)
  return x == 'abc' and 1 or 0
end
