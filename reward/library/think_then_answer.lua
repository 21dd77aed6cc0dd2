-- R1's form: <think>...</think><answer>...</answer>. The answer counts only where the form is kept.
-- If the chat template already wrote <think>, the completion begins inside it: both ways are accepted.
function score(sample)
  local form = rules.think_format(sample, nil, {answer = true})
  if form == 0 then form = rules.think_format(sample, nil, {answer = true, prefilled = true}) end
  local right = rules.accuracy(sample)
  return {score = form * (right or 0) + 0.1 * form, form = form, right = right or 0}
end

cases = {
  {name = "right", answer = "4", completion = "<think>2+2</think>\n<answer>4</answer>", expect = {score = 1.1}},
  {name = "prefilled", answer = "4", completion = "2+2</think><answer>4</answer>", expect = {score = 1.1}},
  {name = "wrong answer", answer = "4", completion = "<think></think><answer>5</answer>", expect = {score = 0.1}},
  {name = "no form", answer = "4", completion = "4", expect = {score = 0, right = 1}},
  {name = "two answers", answer = "4", completion = "<think></think><answer>4</answer><answer>5</answer>", expect = {score = 0}},
}
