-- expect: budget
-- swallows the budget once and returns a score
function score(s)
  pcall(function() while true do end end)
  return 1
end
