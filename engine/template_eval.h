#pragma once
// Runs a chat template's tree: scopes, loops and macros, within limits.
#include <string>
#include <utility>
#include <vector>

#include "engine/template_calls.h"
#include "engine/template_parser.h"

namespace temper::engine::jinja {

/// `loop` inside of a for.
struct Loop : Object {
  List items;
  std::size_t index = 0;
  std::vector<Value> changed;  // the last arguments of loop.changed()

  bool ended = false;

  Value Attribute(const Value& self, const std::string& name) const;
  Value Call(const std::string& name, Arguments& args, Meter* meter);
  void End();
};

struct Macro : Object {
  const Statement* definition = nullptr;
};

/// Names and values of one block; a name that is not here is looked for outside.
struct Scope {
  const Scope* outer = nullptr;
  std::vector<std::pair<std::string, Value>> values;

  void Set(const std::string& name, Value value);
  const Value* Find(const std::string& name) const;
};

struct Rendering {
  std::string text;
  std::vector<std::pair<std::size_t, std::size_t>> generated;  // bytes in {% generation %} blocks
};

/// Runs `body` with `globals`. Throws SyntaxError with the line that was run when a limit was
/// passed or a value was wrong.
Rendering Run(const Body& body, std::vector<std::pair<std::string, Value>> globals, Meter* meter);

}  // namespace temper::engine::jinja
