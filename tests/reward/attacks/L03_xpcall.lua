-- expect: budget
-- loops inside the message handler
function score(s)
  local function h() while true do end end
  while true do xpcall(function() while true do end end, h) end
end
