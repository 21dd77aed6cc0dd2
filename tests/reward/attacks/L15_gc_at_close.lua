-- expect: ok=1
-- a finalizer sneaked in after setmetatable: never called
function score(s)
  local mt = {}
  setmetatable({}, mt)
  mt.__gc = function() while true do end end
  return 1
end
