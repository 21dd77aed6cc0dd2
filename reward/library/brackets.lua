-- A task as one file: close what is open. The answer is unique, so equality is the whole check.
local close = {["("] = ")", ["["] = "]", ["{"] = "}", ["<"] = ">"}

function prompts(rng, n)
  local rows = {}
  for i = 1, n do
    local text, open = {}, {}
    for _ = 1, rng:int(2, 10) do
      if #open > 0 and rng:int(1, 3) == 1 then
        text[#text + 1] = close[table.remove(open)]
      else
        local bracket = rng:choice({"(", "[", "{", "<"})
        text[#text + 1] = bracket
        open[#open + 1] = bracket
      end
    end
    if #open == 0 then
      text[#text + 1], open[1] = "(", "("
    end
    local answer = {}
    for k = #open, 1, -1 do answer[#answer + 1] = close[open[k]] end
    rows[i] = {prompt = "Close: " .. table.concat(text) .. " ", answer = table.concat(answer)}
  end
  return rows
end

-- The share of the right brackets from the first on; 1 only for the whole answer and no more.
function score(sample)
  local wanted = sample.answer
  if not wanted or wanted == "" then return nil end
  local found = sample.completion:match("^%s*(.-)%s*$")
  if found == wanted then return {score = 1, exact = 1} end
  local right = 0
  while right < #wanted and found:byte(right + 1) == wanted:byte(right + 1) do right = right + 1 end
  return {score = 0.5 * right / #wanted, exact = 0}
end

cases = {
  {name = "right", prompt = "Close: ([", answer = "])", completion = "])", expect = {score = 1, exact = 1}},
  {name = "half", answer = "])", completion = "]]", expect = {score = 0.25, exact = 0}},
  {name = "too much", answer = "])", completion = "]))", expect = {score = 0.5, exact = 0}},
  {name = "nothing", answer = "])", completion = "", expect = {score = 0}},
  {name = "no answer", completion = "])", expect = {status = "not_applicable"}},
}
