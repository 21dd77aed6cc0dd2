-- Chained sums, e.g. "17+25=42;42+8=50;<50>": 1 if the completion ends with its one <number> and that is the answer.
-- Part `format`: 1 if there is exactly one <number>, at the end. What follows the answer or guesses twice earns nothing.
function score(sample)
  local wanted = tonumber(sample.answer)
  if not wanted then return nil end

  local _, brackets = sample.completion:gsub("[<>]", "")
  local found = sample.completion:match("<(%-?%d+)>%s*$")
  local format = found ~= nil and brackets == 2

  return {
    score = format and tonumber(found) == wanted and 1.0 or 0.0,
    format = format and 1.0 or 0.0,
  }
end

cases = {
  {name = "right", prompt = "17+25+8;", completion = "17+25=42;42+8=50;<50>", answer = "50", expect = {score = 1, format = 1}},
  {name = "wrong", completion = "<51>", answer = "50", expect = {score = 0, format = 1}},
  {name = "two answers", completion = "<1><50>", answer = "50", expect = {score = 0, format = 0}},
  {name = "goes on", completion = "<50> and more", answer = "50", expect = {score = 0, format = 0}},
  {name = "no number in the row", completion = "<50>", answer = "many", expect = {status = "not_applicable"}},
}
