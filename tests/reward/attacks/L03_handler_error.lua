-- expect: ok|script_error|budget
-- errors in the handling of errors
function score(s)
  local function h(m) error(m) end
  local ok = xpcall(error, h, 'x')
  return ok and 0 or 1
end
