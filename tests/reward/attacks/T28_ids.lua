-- expect: ok=1
-- no way to harm the sample for the next call
function score(s)
  s.completion_ids[1] = -1
  s.row.x = 1
  s.completion = nil
  setmetatable(s, {__index = function() error('gone') end})
  return 1
end
