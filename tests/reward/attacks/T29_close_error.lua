-- expect: script_error
-- an error in __close on the way out of an error
function score(s)
  local c <close> = setmetatable({}, {__close = function() error('second', 0) end})
  error('first', 0)
end
