#pragma once
// What a teacher thought of a row's completion: its likeliest tokens at every place.
#include <string>
#include <vector>

#include "configs/json.h"
#include "learner/core/soft_target.h"

namespace temper::sft {

/// Columns teacher_ids and teacher_logprobs of a row of ids, a list for each id of the completion
/// (an empty one: the id itself is the target). Gives the weights of a target: alpha times the
/// teacher's probabilities, which count as all there is (they are divided by their sum), the rest
/// on the row's own id. Empty where the row has no such columns. Throws UserError "<where>: ...".
std::vector<learner::WeightedIds> TeacherTargets(const Json& row, const std::string& where,
                                                 const std::vector<std::int32_t>& completion,
                                                 int vocab, double alpha);

/// sum(w log w): the least that the loss of such a target can be, negated.
double NegatedEntropy(const learner::WeightedIds& target);

}  // namespace temper::sft
