-- expect: script_error
-- an error message of 10 MB with broken UTF-8 and line ends
function score(s)
  error(('\xff\n\0'):rep(3000000), 0)
end
