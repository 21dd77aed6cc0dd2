-- expect: memory|budget|timeout
-- a format of fifty long strings
function score(s)
  local s = ('x'):rep(2000000)
  return #(('%s'):rep(50)):format(table.unpack({s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s}))
end
