-- expect: script_error
-- poisons the strings of everybody
function score(s)
  getmetatable('').__index = {rep = function() return 'owned' end}
  return 1
end
