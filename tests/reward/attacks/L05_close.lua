-- expect: script_error|memory|budget
-- 20,000 nested <close> variables (crashed 5.4.4 through coroutine.close)
function score(s)
  local mt = {__close = function() end}
  local function nest(n)
    local c <close> = setmetatable({}, mt)
    if n > 0 then nest(n - 1) end
  end
  nest(20000)
  error('done')
end
