-- A reward of the whole group: among the right ones the shortest is worth most. Wrong is always 0.
function score_group(samples)
  local results, shortest = {}, math.huge
  for i, sample in ipairs(samples) do
    local right = rules.accuracy(sample)
    if right == 1 then shortest = math.min(shortest, #sample.completion) end
    results[i] = right and {score = right, right = right}
  end
  for i, sample in ipairs(samples) do
    if results[i] and results[i].right == 1 then
      results[i].score = 0.5 + 0.5 * (shortest + 1) / (#sample.completion + 1)
    end
  end
  return results
end

cases = {
  {name = "the shorter one", answer = "42",
   samples = {{completion = "42"}, {completion = "so 42"}, {completion = "7"}},
   expect = {{score = 1}, {score = 0.75}, {score = 0}}},
  {name = "none is right", answer = "42", samples = {{completion = "1"}, {completion = "2"}},
   expect = {{score = 0}, {score = 0}}},
  {name = "no answer", samples = {{completion = "1"}}, expect = {{status = "not_applicable"}}},
}
