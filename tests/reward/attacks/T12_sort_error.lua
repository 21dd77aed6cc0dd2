-- expect: script_error
-- an error inside a comparison
function score(s)
  table.sort({3, 2, 1}, function() error('no') end)
  return 1
end
