-- How much of the wanted text is there, in order: 2 * common / (both lengths), 1 for an exact copy.
function score(sample)
  return rules.lcs_ratio(sample.completion, sample.answer)
end

-- As a task without a dataset: invented words, written backwards.
function prompts(rng, n)
  local consonants, vowels = "bcdfghklmnprstvw", "aeiou"
  local function letter(from)
    local k = rng:int(1, #from)
    return from:sub(k, k)
  end
  local rows = {}
  for i = 1, n do
    local text = ""
    for word = 1, rng:int(1, 2) do
      text = text .. (word > 1 and " " or "")
      for _ = 1, rng:int(1, 3) do text = text .. letter(consonants) .. letter(vowels) end
    end
    rows[i] = {prompt = text .. ";", answer = text:reverse()}
  end
  return rows
end

cases = {
  {name = "right", prompt = "stone;", completion = "enots", answer = "enots", expect = {score = 1}},
  {name = "half", completion = "eno", answer = "enots", expect = {score = 0.75}},
  {name = "nothing", completion = "", answer = "enots", expect = {score = 0}},
}
