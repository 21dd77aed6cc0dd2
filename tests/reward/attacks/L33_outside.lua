-- expect: script_error
-- os.exit
function score(s)
  os.exit(0)
  return 1
end
