// Attributes, subscripts, arithmetic and `in`, as Python and Jinja's sandbox have them.
#include <algorithm>
#include <cmath>

#include "engine/template_calls.h"
#include "engine/template_eval.h"
#include "engine/utf8.h"

namespace temper::engine::jinja {
namespace {

Value Missing(const Value& value, const std::string& name) {
  return Value::Missing(std::string("a value of type ") + value.TypeName() + " has no " +
                        configs::Quote(name));
}

Value Bound(const Value& self, const std::string& name) {
  auto method = std::make_shared<Method>();
  method->self = self;
  method->name = name;
  return Value::Of(std::move(method), self.depth() + 1);
}

// Only what an index can reach: i64 holds it.
bool Index(const Value& key, std::size_t size, std::size_t* at) {
  if (!key.IsIntegral()) return false;
  const std::int64_t i =
      key.integer() < 0 ? key.integer() + static_cast<std::int64_t>(size) : key.integer();
  *at = static_cast<std::size_t>(i);
  return i >= 0 && i < static_cast<std::int64_t>(size);
}

void RefuseSafe(const Value& value) {
  if (value.safe())
    throw Failure("only printing, ~ and a few filters are supported on a text marked safe");
}

// Python's slice.indices.
struct Range {
  std::int64_t start, stop, step;
};
Range Indices(const Value* start, const Value* stop, const Value* step, std::int64_t size) {
  const auto given = [](const Value* v) { return v && !v->IsNone(); };
  Range r{0, size, given(step) ? IntegerOf(*step, "a slice's step") : 1};
  if (r.step == 0) throw Failure("a slice's step is 0");
  const bool back = r.step < 0;
  const auto clamp = [&](const Value* v, std::int64_t absent) {
    if (!given(v)) return absent;
    std::int64_t i = IntegerOf(*v, "a slice's bound");
    if (i < 0) i = std::max<std::int64_t>(i, -size - 1) + size;
    return std::clamp<std::int64_t>(i, back ? -1 : 0, back ? size - 1 : size);
  };
  r.start = clamp(start, back ? size - 1 : 0);
  r.stop = clamp(stop, back ? -1 : size);
  r.step = std::clamp<std::int64_t>(r.step, -size - 1, size + 1);
  return r;
}

std::int64_t IntegerResult(bool overflow, std::int64_t result) {
  if (overflow) throw Failure("an integer leaves 64 bits");
  return result;
}

std::int64_t IntegerPower(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  bool overflow = false;
  // At most 63 doublings change a base other than -1, 0 and 1.
  if (base >= -1 && base <= 1)
    return base == -1 ? (exponent % 2 ? -1 : 1) : exponent == 0 ? 1 : base;
  for (std::int64_t i = 0; i < exponent && !overflow; ++i) {
    overflow = __builtin_mul_overflow(result, base, &result);
  }
  return IntegerResult(overflow, result);
}

Value Integers(const std::string& op, std::int64_t a, std::int64_t b) {
  if (op == "+" || op == "-" || op == "*") {
    std::int64_t r = 0;
    const bool overflow = op == "+"   ? __builtin_add_overflow(a, b, &r)
                          : op == "-" ? __builtin_sub_overflow(a, b, &r)
                                      : __builtin_mul_overflow(a, b, &r);
    return Value::Int(IntegerResult(overflow, r));
  }
  if (op == "**") {
    if (b < 0) return Value::Float(std::pow(double(a), double(b)));
    return Value::Int(IntegerPower(a, b));
  }
  if (b == 0) throw Failure("division by zero");
  if (op == "/") return Value::Float(double(a) / double(b));
  if (a == INT64_MIN && b == -1) throw Failure("an integer leaves 64 bits");
  const bool adjust = a % b != 0 && (a < 0) != (b < 0);  // towards minus infinity
  if (op == "//") return Value::Int(a / b - adjust);
  return Value::Int(a % b + (adjust ? b : 0));
}

Value Floats(const std::string& op, double a, double b) {
  if (op == "+") return Value::Float(a + b);
  if (op == "-") return Value::Float(a - b);
  if (op == "*") return Value::Float(a * b);
  if (op == "**") return Value::Float(std::pow(a, b));
  if (b == 0) throw Failure("division by zero");
  if (op == "/") return Value::Float(a / b);
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  if (op == "%") return Value::Float(rest);
  return Value::Float(std::floor((a - rest) / b + 0.5));
}

Value Repeated(const Value& value, std::int64_t times, Meter* meter) {
  times = std::max<std::int64_t>(times, 0);
  const std::size_t size = value.IsText() ? value.text().size() : value.list().size();
  if (size > 0 && static_cast<std::size_t>(times) > (std::size_t{16} << 20) / size) {
    throw Failure("a repetition too long");
  }
  if (size == 0) times = 0;
  meter->Step(static_cast<std::size_t>(times) / 16);
  if (value.IsText()) {
    std::string out;
    out.reserve(size * static_cast<std::size_t>(times));
    for (std::int64_t i = 0; i < times; ++i) out += value.text();
    return Value::Text(std::move(out), meter);
  }
  meter->Step(size * static_cast<std::size_t>(times));
  List out;
  for (std::int64_t i = 0; i < times; ++i)
    out.insert(out.end(), value.list().begin(), value.list().end());
  return Value::OfList(std::move(out), meter, value.form());
}

bool IsSequence(const Value& v) {
  return v.IsList() && (v.form() == Form::kList || v.form() == Form::kTuple);
}

}  // namespace

std::vector<std::size_t> CharacterStarts(std::string_view text) {
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) starts.push_back(i);
  }
  starts.push_back(text.size());
  return starts;
}

Value GetAttribute(const Value& value, const std::string& name, Meter* meter) {
  if (value.IsUndefined()) throw Failure(value.missing() + "; it has no " + configs::Quote(name));
  if (const auto* space = value.object<Namespace>()) {
    for (const auto& [member, content] : space->members) {
      if (member == name) return content;
    }
    return Missing(value, name);
  }
  if (const auto* loop = value.object<Loop>()) return loop->Attribute(value, name);
  if (name.substr(0, 2) == "__") return Missing(value, name);
  if (HasMethod(value, name)) return Bound(value, name);
  if (value.IsDict()) {
    if (const Value* found = Find(value.dict(), std::string_view(name), meter)) return *found;
  }
  return Missing(value, name);
}

Value GetItem(const Value& value, const Value& key, Meter* meter) {
  if (value.IsUndefined()) throw Failure(value.missing() + "; it has no items");
  if (value.IsList() && value.form() == Form::kIterator) {
    throw Failure("an iterator has no items by number: use the filter list");
  }
  if (value.IsDict() && !key.IsList() && !key.IsDict()) {
    if (const Value* found = Find(value.dict(), key, meter)) return *found;
  }
  std::size_t at = 0;
  if (IsSequence(value) && Index(key, value.list().size(), &at)) return value.list()[at];
  if (value.IsText() && key.IsIntegral()) {
    meter->Work(value.text().size());
    const auto starts = CharacterStarts(value.text());
    if (Index(key, starts.size() - 1, &at)) {
      return Value::Text(value.text().substr(starts[at], starts[at + 1] - starts[at]), meter);
    }
  }
  if (key.IsText()) {
    if (value.object<Namespace>() || value.object<Loop>())
      return GetAttribute(value, key.text(), meter);
    if (key.text().substr(0, 2) != "__" && HasMethod(value, key.text()))
      return Bound(value, key.text());
    return Missing(value, key.text());
  }
  return Value::Missing(std::string("a value of type ") + value.TypeName() + " has no such item");
}

Value Slice(const Value& value, const Value* start, const Value* stop, const Value* step,
            Meter* meter) {
  RefuseSafe(value);
  if (!value.IsText() && !IsSequence(value)) {
    throw Failure(std::string("a value of type ") + value.TypeName() + " cannot be sliced");
  }
  const bool text = value.IsText();
  std::vector<std::size_t> starts;
  if (text) {
    meter->Work(value.text().size());
    starts = CharacterStarts(value.text());
  }
  const auto size = static_cast<std::int64_t>(text ? starts.size() - 1 : value.list().size());
  const Range r = Indices(start, stop, step, size);
  std::string out;
  List list;
  for (std::int64_t i = r.start; r.step > 0 ? i < r.stop : i > r.stop; i += r.step) {
    const auto at = static_cast<std::size_t>(i);
    if (text) {
      out.append(value.text(), starts[at], starts[at + 1] - starts[at]);
    } else {
      list.push_back(value.list()[at]);
    }
  }
  return text ? Value::Text(std::move(out), meter)
              : Value::OfList(std::move(list), meter, value.form());
}

Value Reversed(const Value& value, Meter* meter) {
  if (value.IsText()) {
    RefuseSafe(value);
    const Value step = Value::Int(-1);
    return Slice(value, nullptr, nullptr, &step, meter);
  }
  if (value.IsList() && value.form() == Form::kIterator)
    throw Failure("an iterator cannot be reversed");
  List items = Items(value, meter);
  std::reverse(items.begin(), items.end());
  return Value::OfList(std::move(items), meter, Form::kIterator);
}

Value Calculate(const std::string& op, const Value& a, const Value& b, Meter* meter) {
  for (const Value* v : {&a, &b}) {
    if (v->IsUndefined()) throw Failure(v->missing());
    RefuseSafe(*v);
  }
  if (a.IsNumber() && b.IsNumber()) {
    return a.IsFloat() || b.IsFloat() ? Floats(op, a.number(), b.number())
                                      : Integers(op, a.integer(), b.integer());
  }
  if (op == "+" && a.IsText() && b.IsText()) return Value::Text(a.text() + b.text(), meter);
  if (op == "+" && IsSequence(a) && IsSequence(b) && a.form() == b.form()) {
    meter->Step(a.list().size() + b.list().size());
    List list = a.list();
    list.insert(list.end(), b.list().begin(), b.list().end());
    return Value::OfList(std::move(list), meter, a.form());
  }
  if (op == "*") {
    for (const auto& [x, y] : {std::pair(&a, &b), std::pair(&b, &a)}) {
      if ((x->IsText() || IsSequence(*x)) && y->IsIntegral())
        return Repeated(*x, y->integer(), meter);
    }
  }
  if (op == "%" && a.IsText()) throw Failure("formatting with % is not supported");
  throw Failure("\"" + op + "\" is not supported between " + a.TypeName() + " and " + b.TypeName());
}

bool Contains(const Value& whole, const Value& part, Meter* meter) {
  if (whole.IsUndefined()) return false;
  if (whole.IsText()) {
    if (!part.IsText()) {
      throw Failure(std::string("a value of type ") + part.TypeName() + " cannot be in a text");
    }
    meter->Work(whole.text().size());
    return whole.text().find(part.text()) != std::string::npos;
  }
  if (whole.IsDict()) {
    if (part.IsList() || part.IsDict()) throw Failure("a list or dict cannot be a key");
    return Find(whole.dict(), part, meter) != nullptr;
  }
  if (!whole.IsList()) {
    throw Failure(std::string("nothing can be in a value of type ") + whole.TypeName());
  }
  for (const Value& item : whole.list()) {
    if (Equal(item, part, meter)) return true;
  }
  return false;
}

}  // namespace temper::engine::jinja
