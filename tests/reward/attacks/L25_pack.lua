-- expect: script_error
-- a huge alignment and a huge size in string.pack
function score(s)
  string.pack('!1048576 i8', 1)
  return #string.pack('s9223372036854775807', 'x')
end
