-- expect: ok=1
-- coroutines are absent
function score(s)
  return coroutine == nil and 1 or 0
end
