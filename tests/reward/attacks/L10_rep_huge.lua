-- expect: script_error
-- a string of 2^40 bytes
function score(s)
  return #('x'):rep(1 << 40)
end
