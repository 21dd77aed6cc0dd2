-- expect: ok|budget|timeout
-- a number of 5,000,000 digits
function score(s)
  return tonumber(('9'):rep(5000000)) and 1 or 0
end
