-- expect: script_error
-- repeats nothing 2^62 times
function score(s)
  return #(''):rep(1 << 62)
end
