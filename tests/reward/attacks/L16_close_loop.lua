-- expect: budget
-- __close loops after the budget is spent
function score(s)
  local c <close> = setmetatable({}, {__close = function() while true do end end})
  while true do end
end
