-- expect: ok=1
-- Numbers that nobody seeded, or that were seeded by the clock, would be others in each process.
function score()
  local first = math.random(1, 1 << 40)
  math.randomseed()
  if math.random(1, 1 << 40) ~= first then return 0 end
  math.randomseed(5)
  return math.random(1, 1000000) == 315242 and math.random(1, 1000000) == 402653 and 1 or 0
end
