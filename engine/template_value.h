#pragma once
// A value of the chat-template language: Python's None, numbers, strings, lists, dicts and
// undefined.
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "configs/json.h"

namespace temper::engine::jinja {

/// What stops a rendering; the evaluator adds the place.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Limits of one rendering: steps taken, bytes of live values.
class Meter {
 public:
  Meter(std::int64_t steps, std::size_t bytes) : steps_(steps), bytes_(bytes) {}
  /// Throws Failure when the steps are used up.
  void Step(std::size_t n = 1);
  /// Work on `bytes` of text, as steps.
  void Work(std::size_t bytes) { Step(bytes / 64); }
  void Take(std::size_t bytes);
  void Give(std::size_t bytes) { live_ -= bytes; }

 private:
  std::int64_t steps_;
  std::size_t bytes_, live_ = 0;
};

class Value;
using List = std::vector<Value>;
using Dict = std::vector<std::pair<Value, Value>>;

/// How Python would call a list: it changes how it is printed and what may be done with it.
enum class Form : std::uint8_t { kList, kTuple, kItems, kKeys, kValues, kIterator };

struct Object {  // namespaces, loops, macros, bound methods
  virtual ~Object() = default;
};

class Value {
 public:
  struct Undefined {
    std::string what;  // for errors: "'x' is undefined"
  };
  Value() : data_(Undefined{}) {}
  static Value None() { return Value(Data(std::monostate())); }
  static Value Missing(std::string what) { return Value(Data(Undefined{std::move(what)})); }
  static Value Bool(bool b) { return Value(Data(b)); }
  static Value Int(std::int64_t i) { return Value(Data(i)); }
  static Value Float(double d) { return Value(Data(d)); }
  static Value Of(std::shared_ptr<Object> object, int depth = 0) {
    return Nested(Value(Data(std::move(object))), depth);
  }
  /// A null meter is for what is counted elsewhere: constants of the template.
  static Value Text(std::string text, Meter* meter);
  static Value OfList(List list, Meter* meter, Form form = Form::kList);
  static Value OfDict(Dict dict, Meter* meter);
  /// Throws Failure for an integer past i64.
  static Value FromJson(const Json& json, Meter* meter);

  bool IsUndefined() const { return std::holds_alternative<Undefined>(data_); }
  bool IsNone() const { return std::holds_alternative<std::monostate>(data_); }
  bool IsBool() const { return std::holds_alternative<bool>(data_); }
  bool IsInt() const { return std::holds_alternative<std::int64_t>(data_); }
  bool IsFloat() const { return std::holds_alternative<double>(data_); }
  bool IsIntegral() const { return IsInt() || IsBool(); }
  bool IsNumber() const { return IsIntegral() || IsFloat(); }
  bool IsText() const { return std::holds_alternative<TextPtr>(data_); }
  bool IsList() const { return std::holds_alternative<ListPtr>(data_); }
  bool IsDict() const { return std::holds_alternative<DictPtr>(data_); }
  bool IsObject() const { return std::holds_alternative<std::shared_ptr<Object>>(data_); }

  const std::string& text() const { return *std::get<TextPtr>(data_); }
  const List& list() const { return *std::get<ListPtr>(data_); }
  const Dict& dict() const { return *std::get<DictPtr>(data_); }
  std::int64_t integer() const {
    return IsBool() ? std::get<bool>(data_) : std::get<std::int64_t>(data_);
  }
  double number() const { return IsFloat() ? std::get<double>(data_) : double(integer()); }
  template <typename T>
  T* object() const {
    return IsObject() ? dynamic_cast<T*>(std::get<std::shared_ptr<Object>>(data_).get()) : nullptr;
  }
  const std::shared_ptr<Object>& object_ptr() const {
    return std::get<std::shared_ptr<Object>>(data_);
  }
  const std::string& missing() const { return std::get<Undefined>(data_).what; }

  /// Lists in lists: bounded, because freeing them recurses.
  int depth() const { return depth_; }
  Form form() const { return form_; }
  bool safe() const { return safe_; }  // a string that the filter safe or escape gave
  Value Safe() const;

  /// "str", "int", ...: Python's name of the type.
  const char* TypeName() const;
  bool Truth() const;

 private:
  using TextPtr = std::shared_ptr<const std::string>;
  using ListPtr = std::shared_ptr<const List>;
  using DictPtr = std::shared_ptr<const Dict>;
  using Data = std::variant<Undefined, std::monostate, bool, std::int64_t, double, TextPtr, ListPtr,
                            DictPtr, std::shared_ptr<Object>>;
  explicit Value(Data data) : data_(std::move(data)) {}

  Data data_;
  /// Throws Failure for a depth over the limit.
  static Value Nested(Value value, int depth);

  std::uint16_t depth_ = 0;
  Form form_ = Form::kList;
  bool safe_ = false;
};

/// Python's ==.
bool Equal(const Value& a, const Value& b, Meter* meter);
/// Python's < for two numbers, strings or lists; -1, 0, 1. Throws Failure for other pairs.
int Compare(const Value& a, const Value& b, Meter* meter);
/// The value of a key, or null.
const Value* Find(const Dict& dict, const Value& key, Meter* meter);
const Value* Find(const Dict& dict, std::string_view key, Meter* meter);

/// Python's str() and repr(). Throws Failure for what has an address in it (macros, generators).
std::string Str(const Value& value, Meter* meter);
std::string Repr(const Value& value, Meter* meter);
std::string FloatRepr(double value);

struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false;
  bool multiline = false;
  std::string indent;  // one level
  std::string item = ", ", key = ": ";
};
/// Python's json.dumps.
std::string DumpJson(const Value& value, const JsonStyle& style, Meter* meter);

/// The items that iterating gives: of a list, the keys of a dict, the characters of a string,
/// nothing of undefined. Throws Failure for the rest.
List Items(const Value& value, Meter* meter);

}  // namespace temper::engine::jinja
