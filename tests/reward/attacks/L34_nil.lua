-- expect: not_applicable
-- nil
function score(s)
  return nil
end
