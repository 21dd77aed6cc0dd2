-- expect: ok|script_error|budget|memory|timeout
-- errors while errors are handled (CVE-2022-33099, CVE-2021-43519)
function score(s)
  local function storm(n)
    local ok, m = xpcall(function() local x = nil; return x.y.z end, function(m) return storm and n > 0 and storm(n - 1) or m end)
    return m
  end
  for i = 1, 200 do storm(i) end
  local function deep() local c <close> = setmetatable({}, {__close = function() error('again') end}) return deep() + 1 end
  pcall(deep)
  return 1
end
