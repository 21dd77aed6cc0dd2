-- expect: ok|script_error|budget
-- JSON of 1,000,000 open brackets
function score(s)
  return rules.json(('['):rep(1000000)) or 0
end
