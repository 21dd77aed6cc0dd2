-- expect: invalid_return
-- a returned table whose score is behind __index
function score(s)
  return setmetatable({}, {__index = function() while true do end end, __pairs = function() while true do end end})
end
