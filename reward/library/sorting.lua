-- A task as one file: sort a list. The score is the share of neighbours in order, so that half a sort earns half.
function prompts(rng, n)
  local rows = {}
  for i = 1, n do
    local list, sorted = {}, {}
    for k = 1, rng:int(3, 8) do
      list[k] = rng:int(0, 99)
      sorted[k] = list[k]
    end
    table.sort(sorted)
    rows[i] = {prompt = "Sort: " .. table.concat(list, " "), answer = table.concat(sorted, " ")}
  end
  return rows
end

local function numbers(text)
  local list = {}
  for word in text:gmatch("%S+") do
    local number = math.tointeger(tonumber(word))
    if not number then return nil end
    list[#list + 1] = number
  end
  return list
end

local function same_numbers(a, b)
  if #a ~= #b then return false end
  local x, y = table.move(a, 1, #a, 1, {}), table.move(b, 1, #b, 1, {})
  table.sort(x)
  table.sort(y)
  for i = 1, #x do
    if x[i] ~= y[i] then return false end
  end
  return true
end

-- 0 unless exactly the given numbers are there; part `exact`: 1 if they are sorted.
function score(sample)
  local wanted = numbers(sample.answer or "")
  if not wanted or #wanted < 2 then return nil end
  local found = numbers(sample.completion)
  if not found or not same_numbers(found, wanted) then return {score = 0, exact = 0} end
  local good = 0
  for i = 2, #found do
    if found[i - 1] <= found[i] then good = good + 1 end
  end
  return {score = good / (#found - 1), exact = good == #found - 1 and 1 or 0}
end

cases = {
  {name = "sorted", answer = "1 2 3", completion = "1 2 3", expect = {score = 1, exact = 1}},
  {name = "one pair wrong", answer = "1 2 3", completion = "2 1 3", expect = {score = 0.5, exact = 0}},
  {name = "a number is missing", answer = "1 2 3", completion = "1 2", expect = {score = 0}},
  {name = "another number", answer = "1 2 3", completion = "1 2 4", expect = {score = 0}},
  {name = "words", answer = "1 2 3", completion = "one two three", expect = {score = 0}},
}
