-- reasoning-gym's spell_backward to the last bit: a letter in its place earns 1/n, added one by one. A sum that is
-- exactly 1 without being the word loses 0.2; for some lengths the sum rounds past 1 and keeps it.
function score(sample)
  if not sample.answer then return nil end
  local wanted, got = sample.answer:lower(), sample.completion:lower()
  if got == wanted then return 1 end
  local sum = 0.0
  for i = 1, math.min(#wanted, #got) do
    if wanted:byte(i) == got:byte(i) then sum = sum + 1 / #wanted end
  end
  if sum == 1 then sum = sum - 0.2 end
  return sum
end

cases = {
  {name = "right", completion = "Enots", answer = "enots", expect = {score = 1}},
  {name = "three in place", completion = "enoxx", answer = "enots", expect = {score = 0.6}},
  {name = "a letter more", completion = "enots1", answer = "enots", expect = {score = 0.8}},
  {name = "a letter more, and nine ninths round up",
   completion = "ylhsirruc1", answer = "ylhsirruc", expect = {score = 1}},
  {name = "nothing", completion = "", answer = "enots", expect = {score = 0}},
}
