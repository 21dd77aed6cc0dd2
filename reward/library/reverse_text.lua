-- How much of the wanted text is there, in order: 2 * common / (both lengths), 1 for an exact copy.
function score(sample)
  return rules.lcs_ratio(sample.completion, sample.answer)
end
