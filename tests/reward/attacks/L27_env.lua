-- expect: ok=1
-- nothing behind _ENV, _G._G, package or debug
function score(s)
  local names = {'io', 'os', 'debug', 'package', 'require', 'load', 'loadfile', 'dofile', 'collectgarbage',
                 'coroutine', 'print', 'arg', 'module', 'newproxy', 'setfenv', 'getfenv'}
  for _, name in ipairs(names) do
    if _ENV[name] ~= nil or _G._G[name] ~= nil or rawget(_G, name) ~= nil then return 0 end
  end
  local _ENV <const> = setmetatable({}, {__index = _ENV})
  return io == nil and 1 or 0
end
