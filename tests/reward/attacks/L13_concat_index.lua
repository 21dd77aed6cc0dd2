-- expect: script_error
-- concat over a lying __index
function score(s)
  local t = setmetatable({}, {__index = function() return 'x' end})
  return #table.concat(t, '', 1, math.maxinteger)
end
