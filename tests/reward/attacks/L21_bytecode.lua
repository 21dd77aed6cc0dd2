-- expect: ok=1
-- no way to dump or load bytecode
function score(s)
  return load == nil and string.dump == nil and loadstring == nil and 1 or 0
end
