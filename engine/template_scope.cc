// Names of a block, and `loop`.
#include <algorithm>

#include "engine/template_eval.h"

namespace temper::engine::jinja {

void Scope::Set(const std::string& name, Value value) {
  for (auto& [known, old] : values) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  values.emplace_back(name, std::move(value));
}

const Value* Scope::Find(const std::string& name) const {
  for (const Scope* scope = this; scope; scope = scope->outer) {
    for (const auto& [known, value] : scope->values) {
      if (known == name) return &value;
    }
  }
  return nullptr;
}

void Loop::End() {
  ended = true;
  items.clear();
  changed.clear();
}

Value Loop::Attribute(const Value& self, const std::string& name) const {
  if (ended) throw Failure("a loop is over: its \"loop\" cannot be used");
  const auto count = static_cast<std::int64_t>(items.size()), at = static_cast<std::int64_t>(index);
  if (name == "index") return Value::Int(at + 1);
  if (name == "index0") return Value::Int(at);
  if (name == "first") return Value::Bool(at == 0);
  if (name == "last") return Value::Bool(at + 1 == count);
  if (name == "length") return Value::Int(count);
  if (name == "revindex") return Value::Int(count - at);
  if (name == "revindex0") return Value::Int(count - at - 1);
  if (name == "depth") return Value::Int(1);  // counts recursion, which is refused
  if (name == "depth0") return Value::Int(0);
  if (name == "previtem")
    return at > 0 ? items[index - 1] : Value::Missing("there is no previous item");
  if (name == "nextitem")
    return at + 1 < count ? items[index + 1] : Value::Missing("there is no next item");
  if (name == "cycle" || name == "changed") {
    auto method = std::make_shared<Method>();
    method->self = self;
    method->name = name;
    return Value::Of(std::move(method));
  }
  return Value::Missing("loop has no " + configs::Quote(name));
}

Value Loop::Call(const std::string& name, Arguments& args, Meter* meter) {
  if (ended) throw Failure("a loop is over: its \"loop\" cannot be used");
  if (name == "cycle") {
    if (args.positional.empty()) throw Failure("loop.cycle needs values");
    return args.positional[index % args.positional.size()];
  }
  if (name != "changed") throw Failure("loop." + name + " cannot be called");
  const bool same = changed.size() == args.positional.size() && index > 0 &&
                    std::equal(changed.begin(), changed.end(), args.positional.begin(),
                               [&](const Value& a, const Value& b) { return Equal(a, b, meter); });
  changed = args.positional;
  return Value::Bool(!same);
}

}  // namespace temper::engine::jinja
