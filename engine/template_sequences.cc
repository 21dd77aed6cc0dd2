#include "engine/template_sequences.h"

#include <algorithm>
#include <numeric>

namespace temper::engine::jinja {
namespace {

// item.a.b of "a.b"; numbers between the dots are indices. As subscripts, not as attributes.
Value Attribute(const Value& item, const Value& path, Meter* meter) {
  if (path.IsIntegral()) return GetItem(item, path, meter);
  Value value = item;
  std::string_view rest = TextOf(path, "an attribute");
  while (true) {
    const std::size_t dot = rest.find('.');
    const std::string part(rest.substr(0, dot));
    const bool number =
        !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
    value = GetItem(value, number ? Value::Int(std::stoll(part)) : Value::Text(part, meter), meter);
    if (dot == rest.npos) return value;
    rest.remove_prefix(dot + 1);
  }
}

// What sorting compares: texts without case, unless the template wants it.
Value SortKey(const Value& item, const Value* attribute, bool case_sensitive, Meter* meter) {
  const Value key = attribute && !attribute->IsNone() ? Attribute(item, *attribute, meter) : item;
  if (case_sensitive || !key.IsText()) return key;
  return Value::Text(Lower(key.text()), meter);
}

// A stable order of `keys`. Every pair may be compared: an error there is the template's.
std::vector<std::size_t> Order(const List& keys, bool reverse, Meter* meter) {
  std::vector<std::size_t> order(keys.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const int c = Compare(keys[a], keys[b], meter);
    return reverse ? c > 0 : c < 0;
  });
  return order;
}

}  // namespace

Value First(const Value& self, Arguments&, Meter* meter) {
  const List items = Items(self, meter);
  return items.empty() ? Value::Missing("the first item of nothing is undefined") : items.front();
}

Value Last(const Value& self, Arguments&, Meter* meter) {
  if (self.IsList() && self.form() == Form::kIterator)
    throw Failure("an iterator cannot be reversed");
  const List items = Items(self, meter);
  return items.empty() ? Value::Missing("the last item of nothing is undefined") : items.back();
}

Value AsList(const Value& self, Arguments&, Meter* meter) {
  return Value::OfList(Items(self, meter), meter);
}

Value JoinFilter(const Value& self, Arguments& args, Meter* meter) {
  const Value* between = args.Take(0, "d");
  const Value* attribute = args.Take(1, "attribute");
  const std::string gap = between ? Str(*between, meter) : "";
  std::string out;
  bool first = true;
  for (const Value& item : Items(self, meter)) {
    if (!first) out += gap;
    first = false;
    out +=
        Str(attribute && !attribute->IsNone() ? Attribute(item, *attribute, meter) : item, meter);
    meter->Step();
    if (out.size() > std::size_t{16} << 20) throw Failure("a text too long");
  }
  return Value::Text(std::move(out), meter);
}

Value ItemsFilter(const Value& self, Arguments&, Meter* meter) {
  if (!self.IsUndefined() && !self.IsDict()) throw Failure("the filter items needs a dict");
  List list;
  if (self.IsDict()) {
    for (const auto& [key, value] : self.dict())
      list.push_back(Value::OfList({key, value}, meter, Form::kTuple));
  }
  return Value::OfList(std::move(list), meter, Form::kIterator);
}

Value DictSort(const Value& self, Arguments& args, Meter* meter) {
  const Value* case_sensitive = args.Take(0, "case_sensitive");
  const Value* by = args.Take(1, "by");
  const Value* reverse = args.Take(2, "reverse");
  if (!self.IsDict()) throw Failure("dictsort needs a dict");
  const bool by_value = by && TextOf(*by, "by") == "value";
  if (by && !by_value && by->text() != "key")
    throw Failure("dictsort: by must be \"key\" or \"value\"");
  List keys, list;
  for (const auto& [key, value] : self.dict()) {
    keys.push_back(
        SortKey(by_value ? value : key, nullptr, case_sensitive && case_sensitive->Truth(), meter));
  }
  for (const std::size_t i : Order(keys, reverse && reverse->Truth(), meter)) {
    list.push_back(
        Value::OfList({self.dict()[i].first, self.dict()[i].second}, meter, Form::kTuple));
  }
  return Value::OfList(std::move(list), meter);
}

Value Sort(const Value& self, Arguments& args, Meter* meter) {
  const Value* reverse = args.Take(0, "reverse");
  const Value* case_sensitive = args.Take(1, "case_sensitive");
  const Value* attribute = args.Take(2, "attribute");
  const List items = Items(self, meter);
  List keys, list;
  for (const Value& item : items) {
    keys.push_back(SortKey(item, attribute, case_sensitive && case_sensitive->Truth(), meter));
  }
  for (const std::size_t i : Order(keys, reverse && reverse->Truth(), meter))
    list.push_back(items[i]);
  return Value::OfList(std::move(list), meter);
}

Value Unique(const Value& self, Arguments& args, Meter* meter) {
  const Value* case_sensitive = args.Take(0, "case_sensitive");
  const Value* attribute = args.Take(1, "attribute");
  List seen, list;
  for (const Value& item : Items(self, meter)) {
    const Value key = SortKey(item, attribute, case_sensitive && case_sensitive->Truth(), meter);
    const bool known =
        std::any_of(seen.begin(), seen.end(), [&](const Value& v) { return Equal(v, key, meter); });
    if (known) continue;
    seen.push_back(key);
    list.push_back(item);
  }
  return Value::OfList(std::move(list), meter, Form::kIterator);
}

template <bool kSmallest>
Value Extreme(const Value& self, Arguments& args, Meter* meter) {
  const Value* case_sensitive = args.Take(0, "case_sensitive");
  const Value* attribute = args.Take(1, "attribute");
  const List items = Items(self, meter);
  if (items.empty()) return Value::Missing("the extreme of nothing is undefined");
  std::size_t best = 0;
  List keys;
  for (std::size_t i = 0; i < items.size(); ++i) {
    keys.push_back(SortKey(items[i], attribute, case_sensitive && case_sensitive->Truth(), meter));
    const int c = i == 0 ? 0 : Compare(keys[i], keys[best], meter);
    if (kSmallest ? c < 0 : c > 0) best = i;
  }
  return items[best];
}
template Value Extreme<true>(const Value&, Arguments&, Meter*);
template Value Extreme<false>(const Value&, Arguments&, Meter*);

Value Sum(const Value& self, Arguments& args, Meter* meter) {
  const Value* attribute = args.Take(0, "attribute");
  const Value* start = args.Take(1, "start");
  Value sum = start ? *start : Value::Int(0);
  if (sum.IsText()) throw Failure("sum cannot add texts: use join");
  for (const Value& item : Items(self, meter)) {
    sum = Calculate("+", sum,
                    attribute && !attribute->IsNone() ? Attribute(item, *attribute, meter) : item,
                    meter);
  }
  return sum;
}

Value Reverse(const Value& self, Arguments&, Meter* meter) { return Reversed(self, meter); }

Value Map(const Value& self, Arguments& args, Meter* meter) {
  List list;
  if (args.positional.empty()) {
    const Value* attribute = args.Take(0, "attribute");
    const Value* absent = args.Take(1, "default");
    if (!attribute) throw Failure("map needs an attribute or a filter");
    for (const Value& item : Items(self, meter)) {
      Value value = Attribute(item, *attribute, meter);
      list.push_back(absent && value.IsUndefined() ? *absent : std::move(value));
    }
    return Value::OfList(std::move(list), meter, Form::kIterator);
  }
  const std::string& name = TextOf(args.positional[0], "the filter of map");
  for (const Value& item : Items(self, meter)) {
    Arguments inner;
    inner.positional.assign(args.positional.begin() + 1, args.positional.end());
    inner.named = args.named;
    list.push_back(CallFilter(name, item, inner, meter));
  }
  args = {};
  return Value::OfList(std::move(list), meter, Form::kIterator);
}

template <bool kKeep, bool kByAttribute>
Value Select(const Value& self, Arguments& args, Meter* meter) {
  std::size_t first = 0;
  if (kByAttribute && args.positional.empty()) throw Failure("an attribute is missing");
  if (kByAttribute) first = 1;
  List list;
  for (const Value& item : Items(self, meter)) {
    const Value subject = kByAttribute ? Attribute(item, args.positional[0], meter) : item;
    bool holds = subject.Truth();
    if (args.positional.size() > first) {
      Arguments inner;
      inner.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(first) + 1,
                              args.positional.end());
      inner.named = args.named;
      holds = CallTest(TextOf(args.positional[first], "the test"), subject, inner, meter);
    }
    meter->Step();
    if (holds == kKeep) list.push_back(item);
  }
  args = {};
  return Value::OfList(std::move(list), meter, Form::kIterator);
}
template Value Select<true, false>(const Value&, Arguments&, Meter*);
template Value Select<false, false>(const Value&, Arguments&, Meter*);
template Value Select<true, true>(const Value&, Arguments&, Meter*);
template Value Select<false, true>(const Value&, Arguments&, Meter*);

}  // namespace temper::engine::jinja
