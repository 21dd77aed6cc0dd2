-- expect: memory|budget|timeout
-- a string that doubles
function score(s)
  local s = 'x'
  while true do s = s .. s end
end
