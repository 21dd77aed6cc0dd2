-- expect: ok|budget|timeout
-- the worst case of a naive plain search
function score(s)
  local text = ('a'):rep(4000000)
  for i = 1, 100 do text:find(('a'):rep(1000000) .. 'b', 1, true) end
  return 1
end
