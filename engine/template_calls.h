#pragma once
// What templates may call: methods of strings, dicts and lists, filters, tests, global functions.
#include <string>
#include <utility>
#include <vector>

#include "engine/template_value.h"

namespace temper::engine::jinja {

/// The arguments of one call; every reader marks what it took.
class Arguments {
 public:
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  /// Argument number `index`, which may also come by name; null: not given.
  const Value* Take(std::size_t index, const char* name);
  /// Throws Failure "<what>: ..." if there are arguments that nobody took.
  void Done(const std::string& what) const;

 private:
  std::size_t taken_ = 0;
  std::vector<std::string> known_;
};

/// A method of a value, not called yet.
struct Method : Object {
  Value self;
  std::string name;
};

struct Namespace : Object {
  std::vector<std::pair<std::string, Value>> members;
};

/// True for what Python's str, dict or list has as a method, ours or not.
bool HasMethod(const Value& self, const std::string& name);
/// Throws Failure for a method that is not supported, naming it.
Value CallMethod(const Value& self, const std::string& name, Arguments& args, Meter* meter);

bool IsFilter(const std::string& name);
Value CallFilter(const std::string& name, const Value& self, Arguments& args, Meter* meter);
bool IsTest(const std::string& name);
bool CallTest(const std::string& name, const Value& self, Arguments& args, Meter* meter);

bool IsFunction(const std::string& name);
Value CallFunction(const std::string& name, Arguments& args, Meter* meter);

/// value.name and value[key] as Jinja's sandbox finds them; missing ones are undefined values.
Value GetAttribute(const Value& value, const std::string& name, Meter* meter);
Value GetItem(const Value& value, const Value& key, Meter* meter);
Value Slice(const Value& value, const Value* start, const Value* stop, const Value* step,
            Meter* meter);
/// + - * / // % **
Value Calculate(const std::string& op, const Value& a, const Value& b, Meter* meter);
bool Contains(const Value& whole, const Value& part, Meter* meter);
Value Reversed(const Value& value, Meter* meter);

/// The bytes of each character of a text, as the places where they begin and the end.
std::vector<std::size_t> CharacterStarts(std::string_view text);
/// Python's strip: characters of `chars`, or white space where it is null.
std::string_view Strip(std::string_view text, const Value* chars, bool left, bool right);
/// Throws Failure "<what> must be ..." unless the value is of that kind.
std::int64_t IntegerOf(const Value& value, const char* what);
const std::string& TextOf(const Value& value, const char* what);
std::string Replaced(std::string_view text, std::string_view from, std::string_view to,
                     std::int64_t count);
std::string Upper(std::string_view text);
std::string Lower(std::string_view text);
std::string Capitalized(std::string_view text);
std::string Titled(std::string_view text);

}  // namespace temper::engine::jinja
