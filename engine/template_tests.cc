// The tests ("is ...") and global functions of chat templates.
#include <algorithm>
#include <unordered_map>

#include "engine/template_calls.h"
#include "engine/template_eval.h"

namespace temper::engine::jinja {
namespace {

using TestBody = bool (*)(const Value& self, Arguments& args, Meter* meter);
using FunctionBody = Value (*)(Arguments& args, Meter* meter);

const Value& Other(Arguments& args) {
  const Value* other = args.Take(0, "other");
  if (!other) throw Failure("the test needs something to compare with");
  return *other;
}

bool IsSequence(const Value& v, Arguments&, Meter*) {
  return v.IsText() || v.IsDict() || v.IsUndefined() ||
         (v.IsList() && (v.form() == Form::kList || v.form() == Form::kTuple));
}
bool IsIterable(const Value& v, Arguments&, Meter*) {
  return v.IsText() || v.IsDict() || v.IsUndefined() || v.IsList() || v.object<Loop>();
}

template <char kSign, bool kOrEqual>
bool Ordered(const Value& v, Arguments& args, Meter* meter) {
  const int c = Compare(v, Other(args), meter);
  return (kOrEqual && c == 0) || (kSign == '<' ? c < 0 : c > 0);
}

bool IsEqual(const Value& v, Arguments& args, Meter* meter) { return Equal(v, Other(args), meter); }
bool IsNotEqual(const Value& v, Arguments& args, Meter* meter) {
  return !Equal(v, Other(args), meter);
}

bool SameAs(const Value& v, Arguments& args, Meter*) {
  const Value& other = Other(args);
  if (v.IsNone() || other.IsNone()) return v.IsNone() && other.IsNone();
  if (v.IsBool() || other.IsBool())
    return v.IsBool() && other.IsBool() && v.integer() == other.integer();
  throw Failure("the test sameas is supported for none, true and false only");
}

bool DivisibleBy(const Value& v, Arguments& args, Meter*) {
  const std::int64_t by = IntegerOf(Other(args), "a divisor");
  if (by == 0) throw Failure("division by zero");
  return by == -1 || IntegerOf(v, "what is divided") % by == 0;
}

template <bool kUpper>
bool IsCase(const Value& v, Arguments&, Meter* meter) {
  Arguments none;
  return CallMethod(Value::Text(Str(v, meter), meter), kUpper ? "isupper" : "islower", none, meter)
      .Truth();
}

const std::unordered_map<std::string, TestBody>& Tests() {
  static const std::unordered_map<std::string, TestBody> table = {
      {"defined", [](const Value& v, Arguments&, Meter*) { return !v.IsUndefined(); }},
      {"undefined", [](const Value& v, Arguments&, Meter*) { return v.IsUndefined(); }},
      {"none", [](const Value& v, Arguments&, Meter*) { return v.IsNone(); }},
      {"string", [](const Value& v, Arguments&, Meter*) { return v.IsText(); }},
      {"number", [](const Value& v, Arguments&, Meter*) { return v.IsNumber(); }},
      {"integer", [](const Value& v, Arguments&, Meter*) { return v.IsInt(); }},
      {"float", [](const Value& v, Arguments&, Meter*) { return v.IsFloat(); }},
      {"boolean", [](const Value& v, Arguments&, Meter*) { return v.IsBool(); }},
      {"true", [](const Value& v, Arguments&, Meter*) { return v.IsBool() && v.integer() == 1; }},
      {"false", [](const Value& v, Arguments&, Meter*) { return v.IsBool() && v.integer() == 0; }},
      {"mapping", [](const Value& v, Arguments&, Meter*) { return v.IsDict(); }},
      {"sequence", IsSequence},
      {"iterable", IsIterable},
      {"callable",
       [](const Value& v, Arguments&, Meter*) {
         return v.IsUndefined() || v.object<Method>() || v.object<Macro>();
       }},
      {"odd",
       [](const Value& v, Arguments&, Meter*) { return IntegerOf(v, "an odd number") % 2 != 0; }},
      {"even",
       [](const Value& v, Arguments&, Meter*) { return IntegerOf(v, "an even number") % 2 == 0; }},
      {"divisibleby", DivisibleBy},
      {"in", [](const Value& v, Arguments& args,
                Meter* meter) { return Contains(Other(args), v, meter); }},
      {"sameas", SameAs},
      {"lower", IsCase<false>},
      {"upper", IsCase<true>},
      {"eq", IsEqual},
      {"equalto", IsEqual},
      {"ne", IsNotEqual},
      {"lt", Ordered<'<', false>},
      {"lessthan", Ordered<'<', false>},
      {"le", Ordered<'<', true>},
      {"gt", Ordered<'>', false>},
      {"greaterthan", Ordered<'>', false>},
      {"ge", Ordered<'>', true>}};
  return table;
}

Value MakeNamespace(Arguments& args, Meter* meter) {
  // Never given back: namespaces live as long as the rendering.
  meter->Take(256 + 128 * args.named.size());
  auto space = std::make_shared<Namespace>();
  if (!args.positional.empty()) {
    if (args.positional.size() > 1 || !args.positional[0].IsDict())
      throw Failure("namespace takes one dict and names");
    for (const auto& [key, value] : args.positional[0].dict()) {
      space->members.emplace_back(TextOf(key, "a name"), value);
    }
  }
  for (auto& [name, value] : args.named) {
    const auto found =
        std::find_if(space->members.begin(), space->members.end(),
                     [&name = name](const auto& member) { return member.first == name; });
    if (found != space->members.end()) {
      found->second = value;
    } else {
      space->members.emplace_back(name, value);
    }
  }
  args = {};
  return Value::Of(std::move(space));
}

Value MakeDict(Arguments& args, Meter* meter) {
  Dict dict;
  if (!args.positional.empty()) {
    if (args.positional.size() > 1 || !args.positional[0].IsDict())
      throw Failure("dict takes one dict and names");
    dict = args.positional[0].dict();
  }
  for (auto& [name, value] : args.named) {
    const auto found = std::find_if(dict.begin(), dict.end(), [&name = name](const auto& member) {
      return member.first.IsText() && member.first.text() == name;
    });
    if (found != dict.end()) {
      found->second = value;
    } else {
      dict.emplace_back(Value::Text(name, meter), value);
    }
  }
  args = {};
  return Value::OfDict(std::move(dict), meter);
}

Value MakeRange(Arguments& args, Meter* meter) {
  constexpr std::int64_t kMaxRange = 100'000;  // as Jinja's sandbox
  const Value* first = args.Take(0, "start");
  const Value* second = args.Take(1, "stop");
  const Value* third = args.Take(2, "step");
  if (!first) throw Failure("range needs a number");
  const std::int64_t start = second ? IntegerOf(*first, "a range's start") : 0;
  const std::int64_t stop = IntegerOf(second ? *second : *first, "a range's end");
  const std::int64_t step = third ? IntegerOf(*third, "a range's step") : 1;
  if (step == 0) throw Failure("range: the step is 0");
  List list;
  for (__int128 i = start; step > 0 ? i < stop : i > stop; i += step) {
    if (static_cast<std::int64_t>(list.size()) == kMaxRange) {
      throw Failure("range: more than " + std::to_string(kMaxRange) + " numbers");
    }
    list.push_back(Value::Int(static_cast<std::int64_t>(i)));
  }
  return Value::OfList(std::move(list), meter);
}

Value Raise(Arguments& args, Meter* meter) {
  const Value* message = args.Take(0, "message");
  throw Failure("the template says: " + configs::Quote(message ? Str(*message, meter) : ""));
}

const std::unordered_map<std::string, FunctionBody>& Functions() {
  static const std::unordered_map<std::string, FunctionBody> table = {{"namespace", MakeNamespace},
                                                                      {"dict", MakeDict},
                                                                      {"range", MakeRange},
                                                                      {"raise_exception", Raise}};
  return table;
}

}  // namespace

bool IsTest(const std::string& name) { return Tests().count(name) > 0; }

bool CallTest(const std::string& name, const Value& self, Arguments& args, Meter* meter) {
  const auto found = Tests().find(name);
  if (found == Tests().end())
    throw Failure("the test " + configs::Quote(name) + " is not supported");
  meter->Step();
  const bool holds = found->second(self, args, meter);
  args.Done(name);
  return holds;
}

bool IsFunction(const std::string& name) { return Functions().count(name) > 0; }

Value CallFunction(const std::string& name, Arguments& args, Meter* meter) {
  Value result = Functions().at(name)(args, meter);
  args.Done(name);
  return result;
}

}  // namespace temper::engine::jinja
