-- expect: budget
-- swallows the budget with pcall, again and again
function score(s)
  while true do pcall(function() while true do end end) end
end
