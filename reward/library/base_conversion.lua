-- A task as one file: write a number in another base.
local digits = "0123456789abcdef"

local function in_base(n, base)
  local text = ""
  repeat
    local digit = n % base
    text = digits:sub(digit + 1, digit + 1) .. text
    n = n // base
  until n == 0
  return text
end

function prompts(rng, n)
  local rows = {}
  for i = 1, n do
    local value, from, to = rng:int(0, 4095), rng:choice({2, 8, 10, 16}), rng:choice({2, 8, 10, 16})
    rows[i] = {
      prompt = ("Write %s (base %d) in base %d: "):format(in_base(value, from), from, to),
      answer = in_base(value, to), base = to,
    }
  end
  return rows
end

-- Leading zeros, upper case and a prefix (0x, 0b, 0o) are fine; another number is not.
function score(sample)
  if not sample.answer or not sample.row.base then return nil end
  local text = sample.completion:lower():match("^%s*(.-)%s*$"):gsub("^0[xbo]", "")
  local found = #text <= 16 and tonumber(text, sample.row.base)
  return {score = found and found == tonumber(sample.answer, sample.row.base) and 1 or 0,
          format = found and 1 or 0}
end

cases = {
  {name = "hexadecimal", row = {base = 16}, answer = "ff", completion = "0xFF", expect = {score = 1}},
  {name = "binary", row = {base = 2}, answer = "101", completion = "0101", expect = {score = 1}},
  {name = "wrong", row = {base = 2}, answer = "101", completion = "100", expect = {score = 0, format = 1}},
  {name = "no number of this base", row = {base = 2}, answer = "101", completion = "5", expect = {score = 0, format = 0}},
  {name = "no base", answer = "101", completion = "101", expect = {status = "not_applicable"}},
}
