-- expect: script_error
-- an endless finalizer
function score(s)
  setmetatable({}, {__gc = function() while true do end end})
  return 1
end
