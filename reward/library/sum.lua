-- Chained sums, e.g. "17+25=42;42+8=50;<50>": 1 if the number in the last <...> is the answer.
-- Part `format`: 1 if the completion has exactly one <number>, at its end.
function score(sample)
  local wanted = tonumber(sample.answer)
  if not wanted then return nil end

  local last, count = nil, 0
  for inside in sample.completion:gmatch("<([^<>]*)>") do
    last, count = inside, count + 1
  end
  local found = last and last:match("^%-?%d+$")
  local at_end = sample.completion:match("<%-?%d+>%s*$") ~= nil

  return {
    score = found and tonumber(found) == wanted and 1.0 or 0.0,
    format = count == 1 and at_end and 1.0 or 0.0,
  }
end
