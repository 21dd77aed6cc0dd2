#include "engine/template_value.h"

#include <algorithm>
#include <cmath>

#include "engine/utf8.h"

namespace temper::engine::jinja {
namespace {

constexpr std::size_t kMaxText = std::size_t{16} << 20;
constexpr std::size_t kOverhead = 64;  // of a string or list beside its content
constexpr int kMaxDepth = 100;

// Hands the bytes back when the last holder lets go.
template <typename T>
std::shared_ptr<const T> Counted(T content, std::size_t bytes, Meter* meter) {
  if (!meter) return std::make_shared<const T>(std::move(content));
  meter->Take(bytes);
  return {new T(std::move(content)), [meter, bytes](const T* p) {
            delete p;
            meter->Give(bytes);
          }};
}

}  // namespace

void Meter::Step(std::size_t n) {
  steps_ -= static_cast<std::int64_t>(n);
  if (steps_ < 0) throw Failure("the template takes too many steps");
}

void Meter::Take(std::size_t bytes) {
  live_ += bytes;
  if (live_ <= bytes_) return;
  live_ -= bytes;
  throw Failure("the template's values need more than " + std::to_string(bytes_ >> 20) + " MiB");
}

Value Value::Text(std::string text, Meter* meter) {
  if (text.size() > kMaxText) {
    throw Failure("a text of " + std::to_string(text.size()) + " bytes: at most " +
                  std::to_string(kMaxText) + " are made");
  }
  if (meter) meter->Work(text.size());
  const std::size_t bytes = text.size() + kOverhead;
  return Value(Data(Counted(std::move(text), bytes, meter)));
}

Value Value::Nested(Value value, int depth) {
  if (depth > kMaxDepth) throw Failure("values nested too deeply");
  value.depth_ = static_cast<std::uint16_t>(depth);
  return value;
}

Value Value::OfList(List list, Meter* meter, Form form) {
  if (meter) meter->Step(list.size());
  int depth = 0;
  for (const Value& item : list) depth = std::max(depth, item.depth() + 1);
  const std::size_t bytes = list.size() * sizeof(Value) + kOverhead;
  Value value(Data(Counted(std::move(list), bytes, meter)));
  value.form_ = form;
  return Nested(std::move(value), depth);
}

Value Value::OfDict(Dict dict, Meter* meter) {
  if (meter) meter->Step(dict.size());
  const std::size_t bytes = dict.size() * 2 * sizeof(Value) + kOverhead;
  int depth = 0;
  for (const auto& [key, item] : dict) depth = std::max(depth, item.depth() + 1);
  return Nested(Value(Data(Counted(std::move(dict), bytes, meter))), depth);
}

// Json's reader has bounded the depth.
Value Value::FromJson(const Json& json, Meter* meter) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return Bool(json.get<bool>());
    case Json::value_t::number_unsigned:
      if (json.get<std::uint64_t>() > INT64_MAX) {
        throw Failure("the integer " + json.dump() + " is too large for a template");
      }
      return Int(json.get<std::int64_t>());
    case Json::value_t::number_integer:
      return Int(json.get<std::int64_t>());
    case Json::value_t::number_float:
      return Float(json.get<double>());
    case Json::value_t::string:
      return Text(json.get<std::string>(), meter);
    case Json::value_t::array: {
      List list;
      list.reserve(json.size());
      for (const Json& item : json) list.push_back(FromJson(item, meter));
      return OfList(std::move(list), meter);
    }
    case Json::value_t::object: {
      Dict dict;
      dict.reserve(json.size());
      for (const auto& [key, item] : json.items()) {
        dict.emplace_back(Text(key, meter), FromJson(item, meter));
      }
      return OfDict(std::move(dict), meter);
    }
    default:
      return None();
  }
}

Value Value::Safe() const {
  Value value = *this;
  value.safe_ = true;
  return value;
}

const char* Value::TypeName() const {
  constexpr const char* kNames[] = {"undefined", "None", "bool", "int",   "float",
                                    "str",       "list", "dict", "object"};
  return IsList() && form_ != Form::kList ? (form_ == Form::kTuple ? "tuple" : "iterator")
                                          : kNames[data_.index()];
}

bool Value::Truth() const {
  if (IsUndefined() || IsNone()) return false;
  if (IsIntegral()) return integer() != 0;
  if (IsFloat()) return number() != 0;
  if (IsText()) return !text().empty();
  // A generator is true, whatever it will give.
  if (IsList()) return !list().empty() || form_ == Form::kIterator;
  if (IsDict()) return !dict().empty();
  return true;
}

namespace {

int CompareNumbers(const Value& a, const Value& b) {
  if (a.IsIntegral() && b.IsIntegral()) {
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
  }
  const long double x = a.IsFloat() ? a.number() : static_cast<long double>(a.integer());
  const long double y = b.IsFloat() ? b.number() : static_cast<long double>(b.integer());
  return x < y ? -1 : x > y;
}

bool SameKind(const Value& a, const Value& b) {
  return a.IsList() && b.IsList() && (a.form() == Form::kTuple) == (b.form() == Form::kTuple) &&
         a.form() != Form::kIterator && b.form() != Form::kIterator;
}

bool EqualAt(const Value& a, const Value& b, Meter* meter, int depth) {
  if (depth > kMaxDepth) throw Failure("values nested too deeply to be compared");
  meter->Step();
  if (a.IsNumber() && b.IsNumber()) {
    if (std::isnan(a.number()) || std::isnan(b.number())) return false;
    return CompareNumbers(a, b) == 0;
  }
  if (a.IsText() && b.IsText()) {
    meter->Work(std::min(a.text().size(), b.text().size()));
    return a.text() == b.text();
  }
  if (SameKind(a, b)) {
    if (a.list().size() != b.list().size()) return false;
    for (std::size_t i = 0; i < a.list().size(); ++i) {
      if (!EqualAt(a.list()[i], b.list()[i], meter, depth + 1)) return false;
    }
    return true;
  }
  if (a.IsDict() && b.IsDict()) {
    if (a.dict().size() != b.dict().size()) return false;
    for (const auto& [key, value] : a.dict()) {
      const Value* other = Find(b.dict(), key, meter);
      if (!other || !EqualAt(value, *other, meter, depth + 1)) return false;
    }
    return true;
  }
  if (a.IsObject() && b.IsObject()) return a.object_ptr() == b.object_ptr();
  return (a.IsNone() && b.IsNone()) || (a.IsUndefined() && b.IsUndefined());
}

int CompareAt(const Value& a, const Value& b, Meter* meter, int depth) {
  if (depth > kMaxDepth) throw Failure("values nested too deeply to be compared");
  meter->Step();
  if (a.IsNumber() && b.IsNumber()) {
    if (std::isnan(a.number()) || std::isnan(b.number())) throw Failure("NaN has no order");
    return CompareNumbers(a, b);
  }
  if (a.IsText() && b.IsText()) {
    meter->Work(std::min(a.text().size(), b.text().size()));
    const int c = a.text().compare(b.text());  // UTF-8 has the order of the code points
    return c < 0 ? -1 : c > 0;
  }
  if (SameKind(a, b)) {
    for (std::size_t i = 0; i < std::min(a.list().size(), b.list().size()); ++i) {
      if (EqualAt(a.list()[i], b.list()[i], meter, depth + 1)) continue;
      return CompareAt(a.list()[i], b.list()[i], meter, depth + 1);
    }
    return a.list().size() < b.list().size() ? -1 : a.list().size() > b.list().size();
  }
  throw Failure(std::string("'<' is not supported between ") + a.TypeName() + " and " +
                b.TypeName());
}

}  // namespace

bool Equal(const Value& a, const Value& b, Meter* meter) { return EqualAt(a, b, meter, 0); }
int Compare(const Value& a, const Value& b, Meter* meter) { return CompareAt(a, b, meter, 0); }

const Value* Find(const Dict& dict, const Value& key, Meter* meter) {
  if (key.IsText()) return Find(dict, std::string_view(key.text()), meter);
  meter->Step(dict.size() / 8);
  for (const auto& [name, value] : dict) {
    if (Equal(name, key, meter)) return &value;
  }
  return nullptr;
}

const Value* Find(const Dict& dict, std::string_view key, Meter* meter) {
  meter->Step(dict.size() / 8);
  for (const auto& [name, value] : dict) {
    if (name.IsText() && name.text() == key) return &value;
  }
  return nullptr;
}

List Items(const Value& value, Meter* meter) {
  if (value.IsUndefined()) return {};
  if (value.IsList()) {
    meter->Step(value.list().size());
    return value.list();
  }
  List items;
  if (value.IsDict()) {
    meter->Step(value.dict().size());
    for (const auto& [key, item] : value.dict()) items.push_back(key);
    return items;
  }
  if (!value.IsText()) {
    throw Failure(std::string("a value of type ") + value.TypeName() + " cannot be iterated");
  }
  for (std::string_view rest = value.text(); !rest.empty();) {
    const auto length = static_cast<std::size_t>(std::max(Utf8Length(rest.substr(0, 4)), 1));
    meter->Step();
    items.push_back(Value::Text(std::string(rest.substr(0, length)), meter));
    rest.remove_prefix(length);
  }
  return items;
}

}  // namespace temper::engine::jinja
