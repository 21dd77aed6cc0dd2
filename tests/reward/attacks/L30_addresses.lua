-- expect: ok=1
-- no address in any text
function score(s)
  local hidden = {tostring({}), tostring(score), tostring(string.find), ('%s'):format({}), tostring(setmetatable({}, {__name = 'x'}))}
  for _, text in ipairs(hidden) do if text:find('0x', 1, true) then return 0 end end
  return pcall(string.format, '%p', {}) and 0 or 1
end
