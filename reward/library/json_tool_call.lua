-- A tool call: valid JSON of the right shape is 0.3, the right function 0.6, the right arguments 1.
local schema = {
  type = "object", required = {"name", "arguments"}, additionalProperties = false,
  properties = {name = {type = "string"}, arguments = {type = "object"}},
}

function score(sample)
  local row = sample.row
  if not row.name then return nil end
  if rules.json(sample, nil, {schema = schema, whole = false}) ~= 1 then return {score = 0, shape = 0} end
  schema.properties.name.const = row.name
  local name = rules.json(sample, nil, {schema = schema, whole = false})
  schema.properties.arguments.const = row.arguments
  local arguments = rules.json(sample, nil, {schema = schema, whole = false})
  return {score = 0.3 + 0.3 * name + 0.4 * arguments, shape = 1, name = name, arguments = arguments}
end

local row = {name = "add", arguments = {a = 1, b = 2}}
cases = {
  {name = "right", row = row, completion = '{"name": "add", "arguments": {"b": 2, "a": 1}}', expect = {score = 1}},
  {name = "other argument", row = row, completion = '{"name": "add", "arguments": {"a": 1, "b": 3}}', expect = {score = 0.6}},
  {name = "other function", row = row, completion = '{"name": "sub", "arguments": {"a": 1, "b": 2}}', expect = {score = 0.3}},
  {name = "in a sentence", row = row, completion = 'I call {"name": "add", "arguments": {"a": 1, "b": 2}} now', expect = {score = 1}},
  {name = "broken", row = row, completion = '{"name": "add"', expect = {score = 0}},
}
