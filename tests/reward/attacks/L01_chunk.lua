-- expect: budget
-- an endless loop before score() is defined
while true do end
function score(s)
  return 1
end
