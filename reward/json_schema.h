#pragma once
// The part of JSON Schema that rewards use.
#include "configs/json.h"

namespace temper::reward {

/// Throws std::invalid_argument for a schema with a keyword we do not check (type, properties,
/// required, additionalProperties, items, enum, const, anyOf, allOf, not, minimum, maximum,
/// exclusiveMinimum, exclusiveMaximum, minLength, maxLength, minItems, maxItems, and annotations).
void CheckSchema(const Json& schema);

/// The schema must have passed CheckSchema. Lengths of strings count code points.
bool FitsSchema(const Json& value, const Json& schema);

}  // namespace temper::reward
