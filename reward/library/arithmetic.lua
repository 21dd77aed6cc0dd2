-- A task as one file: sums, differences and products; the answer stands alone behind "=".
local signs = {["+"] = function(a, b) return a + b end, ["-"] = function(a, b) return a - b end,
               ["*"] = function(a, b) return a * b end}

function prompts(rng, n)
  local rows = {}
  for i = 1, n do
    local sign = rng:choice({"+", "-", "*"})
    local most = sign == "*" and 12 or 99
    local a, b = rng:int(0, most), rng:int(0, most)
    rows[i] = {prompt = ("%d%s%d="):format(a, sign, b), answer = tostring(signs[sign](a, b))}
  end
  return rows
end

-- Part `format`: 1 if the completion is one whole number and nothing else.
function score(sample)
  if not sample.answer then return nil end
  local found = sample.completion:match("^%s*(%-?%d+)%s*$")
  return {score = found == sample.answer and 1 or 0, format = found and 1 or 0}
end

cases = {
  {name = "right", prompt = "3+4=", completion = "7", answer = "7", expect = {score = 1, format = 1}},
  {name = "white space", completion = " 7\n", answer = "7", expect = {score = 1}},
  {name = "wrong", completion = "8", answer = "7", expect = {score = 0, format = 1}},
  {name = "two guesses", completion = "7 8", answer = "7", expect = {score = 0, format = 0}},
  {name = "no answer", completion = "7", expect = {status = "not_applicable"}},
}
