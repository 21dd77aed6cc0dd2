// The filters of chat templates.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <functional>
#include <unordered_map>

#include "engine/template_calls.h"
#include "engine/template_sequences.h"

namespace temper::engine::jinja {
namespace {

using FilterBody = Value (*)(const Value& self, Arguments& args, Meter* meter);

Value ToJson(const Value& self, Arguments& args, Meter* meter) {
  JsonStyle style;
  if (const Value* v = args.Take(0, "ensure_ascii")) style.ensure_ascii = v->Truth();
  const Value* indent = args.Take(1, "indent");
  const Value* separators = args.Take(2, "separators");
  if (const Value* v = args.Take(3, "sort_keys")) style.sort_keys = v->Truth();
  if (indent && !indent->IsNone()) {
    style.multiline = true;
    style.item = ",";
    if (indent->IsText()) {
      style.indent = indent->text();
    } else {
      style.indent.assign(
          static_cast<std::size_t>(std::clamp<std::int64_t>(IntegerOf(*indent, "indent"), 0, 64)),
          ' ');
    }
  }
  if (separators && !separators->IsNone()) {
    if (!separators->IsList() || separators->list().size() != 2)
      throw Failure("separators must be two texts");
    style.item = TextOf(separators->list()[0], "a separator");
    style.key = TextOf(separators->list()[1], "a separator");
  }
  return Value::Text(DumpJson(self, style, meter), meter);
}

Value Default(const Value& self, Arguments& args, Meter* meter) {
  const Value* other = args.Take(0, "default_value");
  const Value* falsy = args.Take(1, "boolean");
  if (!self.IsUndefined() && !(falsy && falsy->Truth() && !self.Truth())) return self;
  return other ? *other : Value::Text("", meter);
}

Value Length(const Value& self, Arguments&, Meter* meter) {
  if (self.IsText()) {
    meter->Work(self.text().size());
    return Value::Int(static_cast<std::int64_t>(CharacterStarts(self.text()).size()) - 1);
  }
  if (self.IsDict()) return Value::Int(static_cast<std::int64_t>(self.dict().size()));
  if (self.IsUndefined()) return Value::Int(0);
  if (!self.IsList() || self.form() == Form::kIterator) {
    throw Failure(std::string("a value of type ") + self.TypeName() + " has no length");
  }
  return Value::Int(static_cast<std::int64_t>(self.list().size()));
}

Value Trim(const Value& self, Arguments& args, Meter* meter) {
  const std::string text = Str(self, meter);
  const Value* chars = args.Take(0, "chars");
  const Value out = Value::Text(std::string(Strip(text, chars, true, true)), meter);
  return self.safe() ? out.Safe() : out;
}

template <std::string (*kChange)(std::string_view)>
Value Changed(const Value& self, Arguments&, Meter* meter) {
  return Value::Text(kChange(Str(self, meter)), meter);
}

Value String(const Value& self, Arguments&, Meter* meter) {
  return self.IsText() ? self : Value::Text(Str(self, meter), meter);
}

Value Safe(const Value& self, Arguments&, Meter* meter) {
  return Value::Text(Str(self, meter), meter).Safe();
}

Value Escape(const Value& self, Arguments&, Meter* meter) {
  if (self.safe()) return self;
  std::string out;
  for (const char c : Str(self, meter)) {
    const std::size_t at = std::string_view("&<>'\"").find(c);
    constexpr const char* kEntities[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    out += at == std::string_view::npos ? std::string(1, c) : kEntities[at];
  }
  return Value::Text(std::move(out), meter).Safe();
}

Value Replace(const Value& self, Arguments& args, Meter* meter) {
  const Value* from = args.Take(0, "old");
  const Value* to = args.Take(1, "new");
  const Value* count = args.Take(2, "count");
  if (!from || !to) throw Failure("replace needs two texts");
  return Value::Text(Replaced(Str(self, meter), Str(*from, meter), Str(*to, meter),
                              count && !count->IsNone() ? IntegerOf(*count, "count") : -1),
                     meter);
}

Value Indent(const Value& self, Arguments& args, Meter* meter) {
  const Value* width = args.Take(0, "width");
  const Value* first = args.Take(1, "first");
  const Value* blank = args.Take(2, "blank");
  std::string by(4, ' ');
  if (width) {
    by = width->IsText() ? width->text()
                         : std::string(static_cast<std::size_t>(std::clamp<std::int64_t>(
                                           IntegerOf(*width, "width"), 0, 1000)),
                                       ' ');
  }
  Arguments none;
  const Value whole = Value::Text(Str(self, meter) + "\n", meter);
  const Value lines = CallMethod(whole, "splitlines", none, meter);
  std::string out = first && first->Truth() ? by : "";
  for (std::size_t i = 0; i < lines.list().size(); ++i) {
    const std::string& line = lines.list()[i].text();
    if (i > 0) out += "\n" + (line.empty() && !(blank && blank->Truth()) ? "" : by);
    out += line;
  }
  return Value::Text(std::move(out), meter);
}

// Python's int() and float() of a text: white space around, underscores between digits.
bool ParseNumber(std::string_view text, double* number) {
  text = Strip(text, nullptr, true, true);
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '9';
    };
    if (text[i] == '_' && i > 0 && digit(i - 1) && digit(i + 1)) continue;
    digits += text[i];
  }
  const std::size_t sign = !digits.empty() && digits[0] == '+';
  const auto result = std::from_chars(digits.data() + sign, digits.data() + digits.size(), *number);
  return result.ec == std::errc() && result.ptr == digits.data() + digits.size() &&
         digits.size() > sign;
}

bool ParseInteger(std::string_view text, std::int64_t* number) {
  text = Strip(text, nullptr, true, true);
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') digits += text[i];
  }
  const std::size_t sign = !digits.empty() && digits[0] == '+';
  const auto result = std::from_chars(digits.data() + sign, digits.data() + digits.size(), *number);
  if (result.ec == std::errc::result_out_of_range) throw Failure("an integer leaves 64 bits");
  return result.ec == std::errc() && result.ptr == digits.data() + digits.size();
}

Value ToInteger(const Value& self, Arguments& args, Meter*) {
  const Value* absent = args.Take(0, "default");
  std::int64_t integer = 0;
  double number = 0;
  if (self.IsIntegral()) return Value::Int(self.integer());
  if (self.IsText() && ParseInteger(self.text(), &integer)) return Value::Int(integer);
  if (self.IsFloat()) {
    number = self.number();
  } else if (!self.IsText() || !ParseNumber(self.text(), &number)) {
    return absent ? *absent : Value::Int(0);
  }
  if (!(std::fabs(number) < 9e18)) throw Failure("an integer leaves 64 bits");
  return Value::Int(static_cast<std::int64_t>(number));
}

Value ToFloat(const Value& self, Arguments& args, Meter*) {
  const Value* absent = args.Take(0, "default");
  double number = 0;
  if (self.IsNumber()) return Value::Float(self.number());
  if (self.IsText() && ParseNumber(self.text(), &number)) return Value::Float(number);
  return absent ? *absent : Value::Float(0.0);
}

Value Absolute(const Value& self, Arguments&, Meter*) {
  if (self.IsIntegral()) {
    if (self.integer() == INT64_MIN) throw Failure("an integer leaves 64 bits");
    return Value::Int(std::abs(self.integer()));
  }
  if (!self.IsFloat()) throw Failure("abs needs a number");
  return Value::Float(std::fabs(self.number()));
}

Value Round(const Value& self, Arguments& args, Meter*) {
  const Value* precision = args.Take(0, "precision");
  const Value* method = args.Take(1, "method");
  if (method && !(method->IsText() && method->text() == "common")) {
    throw Failure("round: only the method \"common\" is supported");
  }
  const std::int64_t digits = precision ? IntegerOf(*precision, "precision") : 0;
  if (digits < 0 || digits > 15) throw Failure("round: a precision from 0 to 15 is supported");
  if (self.IsIntegral()) return Value::Int(self.integer());
  if (!self.IsFloat()) throw Failure("round needs a number");
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", static_cast<int>(digits), self.number());
  double rounded = self.number();
  std::from_chars(text, text + sizeof text, rounded);
  return Value::Float(rounded);
}

const std::unordered_map<std::string, FilterBody>& Filters() {
  static const std::unordered_map<std::string, FilterBody> table = {
      {"tojson", ToJson},
      {"default", Default},
      {"d", Default},
      {"length", Length},
      {"count", Length},
      {"trim", Trim},
      {"upper", Changed<Upper>},
      {"lower", Changed<Lower>},
      {"capitalize", Changed<Capitalized>},
      {"title", Changed<Titled>},
      {"string", String},
      {"safe", Safe},
      {"escape", Escape},
      {"e", Escape},
      {"replace", Replace},
      {"indent", Indent},
      {"int", ToInteger},
      {"float", ToFloat},
      {"abs", Absolute},
      {"round", Round},
      {"first", First},
      {"last", Last},
      {"list", AsList},
      {"join", JoinFilter},
      {"items", ItemsFilter},
      {"dictsort", DictSort},
      {"sort", Sort},
      {"unique", Unique},
      {"min", Extreme<true>},
      {"max", Extreme<false>},
      {"sum", Sum},
      {"reverse", Reverse},
      {"map", Map},
      {"select", Select<true, false>},
      {"reject", Select<false, false>},
      {"selectattr", Select<true, true>},
      {"rejectattr", Select<false, true>}};
  return table;
}

// These look at a text without changing it, or know what safe means.
bool TakesSafe(const std::string& name) {
  for (const char* known :
       {"tojson", "default", "d", "length", "count", "trim", "string", "safe", "escape", "e"}) {
    if (name == known) return true;
  }
  return false;
}

}  // namespace

bool IsFilter(const std::string& name) { return Filters().count(name) > 0; }

Value CallFilter(const std::string& name, const Value& self, Arguments& args, Meter* meter) {
  const auto found = Filters().find(name);
  if (found == Filters().end())
    throw Failure("the filter " + configs::Quote(name) + " is not supported");
  if (self.safe() && !TakesSafe(name)) {
    throw Failure("the filter " + configs::Quote(name) + " is not supported on a text marked safe");
  }
  if (self.IsText()) meter->Work(self.text().size());
  meter->Step();
  Value result = found->second(self, args, meter);
  args.Done(name);
  return result;
}

}  // namespace temper::engine::jinja
