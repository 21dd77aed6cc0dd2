-- expect: invalid_return
-- infinity
function score(s)
  return {score = 1, part = math.huge}
end
