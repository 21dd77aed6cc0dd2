-- expect: script_error
-- a string of 60 MB
function score(s)
  return #('x'):rep(60000000)
end
