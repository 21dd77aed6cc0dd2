-- Math with a shown answer: right is 1; right but not in \boxed{} is 0.8, so that the model learns to box.
function score(sample)
  local right = rules.math(sample)
  if right == nil then return nil end
  local boxed = sample.completion:find("\\boxed{", 1, true) and 1 or 0
  return {score = right * (0.8 + 0.2 * boxed), right = right, boxed = boxed}
end

cases = {
  {name = "boxed", answer = "\\frac{1}{2}", completion = "so \\boxed{0.5}", expect = {score = 1, right = 1}},
  {name = "not boxed", answer = "1/2", completion = "The answer is 0.5.", expect = {score = 0.8, boxed = 0}},
  {name = "wrong", answer = "1/2", completion = "\\boxed{2}", expect = {score = 0, right = 0}},
  {name = "no answer in the row", completion = "\\boxed{2}", expect = {status = "not_applicable"}},
}
