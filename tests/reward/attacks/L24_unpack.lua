-- expect: script_error
-- ten million results of table.unpack
function score(s)
  return select('#', table.unpack({}, 1, 10000000))
end
