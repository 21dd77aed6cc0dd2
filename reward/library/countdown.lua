-- A task as one file: reach the target with each number once. Checked in exact fractions, never with floats.
function prompts(rng, n)
  local rows = {}
  for i = 1, n do
    local numbers, value = {}, nil
    local count = rng:int(3, 4)
    for k = 1, count do
      numbers[k] = rng:int(1, 25)
      if k == 1 then
        value = numbers[1]
      else
        local sign = rng:int(1, 3)
        if sign == 1 then value = value + numbers[k]
        elseif sign == 2 then value = value - numbers[k]
        else value = value * numbers[k] end
      end
    end
    rng:shuffle(numbers)
    rows[i] = {
      prompt = ("Use %s once each with + - * / and brackets to get %d. Write <answer>...</answer>.")
          :format(table.concat(numbers, ", "), value),
      nums = numbers, target = value,
    }
  end
  return rows
end

-- 1 for a right formula; 0.1 for a formula in <answer> that is not right.
function score(sample)
  local row = sample.row
  if not row.nums or not row.target then return nil end
  local right = rules.countdown(sample, nil, {numbers = row.nums, target = row.target})
  local format = sample.completion:find("<answer>[%d%s%+%-%*/()]+</answer>") and 1 or 0
  return {score = right == 1 and 1 or 0.1 * format, right = right, format = format}
end

cases = {
  {name = "right", row = {nums = {3, 5, 2}, target = 16}, completion = "<answer>(3 + 5) * 2</answer>", expect = {score = 1}},
  {name = "exact thirds", row = {nums = {8, 3, 8, 3}, target = 24}, completion = "<answer>8/(3-8/3)</answer>",
   expect = {score = 1}},
  {name = "a number twice", row = {nums = {3, 5}, target = 6}, completion = "<answer>3+3</answer>",
   expect = {score = 0.1, right = 0}},
  {name = "not all numbers", row = {nums = {3, 5}, target = 3}, completion = "<answer>3</answer>", expect = {score = 0.1}},
  {name = "words", row = {nums = {3, 5}, target = 8}, completion = "three plus five", expect = {score = 0, format = 0}},
  {name = "no row", completion = "<answer>8</answer>", expect = {status = "not_applicable"}},
}
