-- expect: ok=1
-- keeps state between calls
count = 0
function score(s)
  count = count + 1
  seen = (seen or 0) + 1
  return count == 1 and seen == 1 and 1 or 0
end
