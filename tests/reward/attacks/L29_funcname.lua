-- expect: script_error
-- the name of a function in an error (CVE-2021-44647)
function score(s)
  local t = setmetatable({}, {__index = function(_, k) return (nil)[k] end, __call = 1})
  t.x.y()
  return 1
end
