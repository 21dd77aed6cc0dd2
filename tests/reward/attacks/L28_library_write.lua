-- expect: script_error
-- writes into a library
function score(s)
  string.find = function() return 1 end
  return 1
end
