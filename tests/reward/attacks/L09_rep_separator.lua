-- expect: script_error
-- repeats nothing with an empty separator
function score(s)
  return #(''):rep(1 << 62, '')
end
