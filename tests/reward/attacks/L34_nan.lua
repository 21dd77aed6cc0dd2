-- expect: invalid_return
-- NaN
function score(s)
  return 0 / 0
end
