-- expect: budget
-- an endless loop without `while`
function score(s)
  ::a:: goto a
end
