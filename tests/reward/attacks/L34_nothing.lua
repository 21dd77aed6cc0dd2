-- expect: invalid_return
-- no value at all
function score(s)
  local x = 1
end
