-- expect: memory|budget|timeout
-- a gsub that doubles
function score(s)
  local s = 'x'
  while true do s = s:gsub('.', '%0%0') end
end
