-- expect: budget
-- an endless loop
function score(s)
  while true do end
end
