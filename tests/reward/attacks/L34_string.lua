-- expect: invalid_return
-- a string
function score(s)
  return '1'
end
