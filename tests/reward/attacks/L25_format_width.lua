-- expect: script_error
-- a format 10^9 wide
function score(s)
  return #('%1000000000d'):format(1)
end
