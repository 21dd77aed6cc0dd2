-- expect: memory|budget|timeout
-- swallows out-of-memory with pcall, again and again
function score(s)
  local keep = {}
  while true do
    pcall(function() while true do keep[#keep + 1] = ('x'):rep(1000000) .. #keep end end)
  end
end
