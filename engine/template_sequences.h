#pragma once
// The filters over lists, for the table of filters.
#include "engine/template_calls.h"

namespace temper::engine::jinja {

Value First(const Value& self, Arguments& args, Meter* meter);
Value Last(const Value& self, Arguments& args, Meter* meter);
Value AsList(const Value& self, Arguments& args, Meter* meter);
Value JoinFilter(const Value& self, Arguments& args, Meter* meter);
Value ItemsFilter(const Value& self, Arguments& args, Meter* meter);
Value DictSort(const Value& self, Arguments& args, Meter* meter);
Value Sort(const Value& self, Arguments& args, Meter* meter);
Value Unique(const Value& self, Arguments& args, Meter* meter);
template <bool kSmallest>
Value Extreme(const Value& self, Arguments& args, Meter* meter);
Value Sum(const Value& self, Arguments& args, Meter* meter);
Value Reverse(const Value& self, Arguments& args, Meter* meter);
Value Map(const Value& self, Arguments& args, Meter* meter);
/// select, reject, selectattr, rejectattr.
template <bool kKeep, bool kByAttribute>
Value Select(const Value& self, Arguments& args, Meter* meter);

}  // namespace temper::engine::jinja
