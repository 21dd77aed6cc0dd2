-- expect: script_error
-- an error object whose __tostring loops
function score(s)
  error(setmetatable({}, {__tostring = function() while true do end end}))
end
