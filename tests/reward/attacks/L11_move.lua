-- expect: script_error
-- moves 2^63 elements
function score(s)
  table.move({}, 1, math.maxinteger - 1, 2)
  return 1
end
