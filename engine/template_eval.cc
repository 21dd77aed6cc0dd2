#include "engine/template_eval.h"

#include <algorithm>

#include "engine/template_lexer.h"

namespace temper::engine::jinja {
namespace {

constexpr std::size_t kMaxOutput = std::size_t{16} << 20;
constexpr int kMaxDepth = 400;  // of calls in calls, a few hundred bytes of stack each
constexpr int kMaxMacros = 40;

enum class Flow : std::uint8_t { kOn, kBreak, kContinue };

class Evaluator {
 public:
  Evaluator(Scope* globals, Meter* meter) : globals_(globals), meter_(meter) {}

  Flow RunBody(const Body& body, Scope* scope);
  void Forget();
  int line() const { return line_; }
  Rendering out;

 private:
  class Depth {
   public:
    explicit Depth(int* depth) : depth_(depth) {
      if (++*depth_ > kMaxDepth) throw Failure("the template calls itself too deeply");
    }
    ~Depth() { --*depth_; }

   private:
    int* depth_;
  };

  Flow RunStatement(const Statement& s, Scope* scope);
  Flow RunIf(const Statement& s, Scope* scope);
  Flow RunFor(const Statement& s, Scope* scope);
  List Filtered(const Statement& s, const List& items, Scope* scope);
  void RunSet(const Statement& s, Scope* scope);
  std::string Captured(const Body& body, Scope* scope);
  void Write(std::string_view text);
  void Assign(const std::vector<std::string>& names, const Value& value, Scope* scope);

  Value Eval(const Expr& e, Scope* scope);
  Value EvalTest(const Expr& e, Scope* scope);
  Value EvalName(const Expr& e, Scope* scope);
  Value EvalDict(const Expr& e, Scope* scope);
  Value EvalSlice(const Expr& e, Scope* scope);
  Value EvalCall(const Expr& e, Scope* scope);
  Value EvalFilter(const Expr& e, Scope* scope, const Value* text);
  Value EvalCompare(const Expr& e, Scope* scope);
  Value EvalUnary(const Expr& e, Scope* scope);
  Value EvalConcat(const Expr& e, Scope* scope);
  List EvalAll(const Expr& e, Scope* scope);
  Arguments EvalArguments(const Expr& e, Scope* scope);
  Value CallMacro(const Statement& macro, Arguments& args);

  Scope* globals_;
  Meter* meter_;
  int line_ = 1;
  int depth_ = 0, macros_ = 0;
  std::vector<std::shared_ptr<Object>> namespaces_;
};

// A namespace may hold itself: emptied, it lets go.
void Evaluator::Forget() {
  for (const auto& object : namespaces_) static_cast<Namespace*>(object.get())->members.clear();
}

void Evaluator::Write(std::string_view text) {
  if (out.text.size() + text.size() > kMaxOutput) {
    throw Failure("more than " + std::to_string(kMaxOutput >> 20) + " MiB of output");
  }
  meter_->Work(text.size());
  out.text += text;
}

Flow Evaluator::RunBody(const Body& body, Scope* scope) {
  const Depth depth(&depth_);
  for (const Statement& statement : body) {
    const Flow flow = RunStatement(statement, scope);
    if (flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Flow Evaluator::RunStatement(const Statement& s, Scope* scope) {
  using Kind = Statement::Kind;
  line_ = s.line;
  meter_->Step();
  switch (s.kind) {
    case Kind::kText:
      Write(s.text);
      return Flow::kOn;
    case Kind::kOutput:
      Write(Str(Eval(*s.exprs[0], scope), meter_));
      return Flow::kOn;
    case Kind::kIf:
      return RunIf(s, scope);
    case Kind::kFor:
      return RunFor(s, scope);
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
    case Kind::kMacro: {
      auto macro = std::make_shared<Macro>();
      macro->definition = &s;
      scope->Set(s.text, Value::Of(std::move(macro)));
      return Flow::kOn;
    }
    case Kind::kWith: {
      Scope inner{scope, {}};
      List values;
      for (const ExprPtr& e : s.exprs) values.push_back(Eval(*e, scope));
      for (std::size_t i = 0; i < values.size(); ++i) inner.Set(s.names[i], values[i]);
      return RunBody(s.bodies[0], &inner);
    }
    case Kind::kGeneration: {
      Scope inner{scope, {}};
      const std::size_t from = out.text.size();
      RunBody(s.bodies[0], &inner);
      out.generated.emplace_back(from, out.text.size());
      return Flow::kOn;
    }
    default:
      RunSet(s, scope);
      return Flow::kOn;
  }
}

Flow Evaluator::RunIf(const Statement& s, Scope* scope) {
  for (std::size_t i = 0; i < s.exprs.size(); ++i) {
    if (Eval(*s.exprs[i], scope).Truth()) return RunBody(s.bodies[i], scope);
  }
  return s.bodies.size() > s.exprs.size() ? RunBody(s.bodies.back(), scope) : Flow::kOn;
}

void Evaluator::Assign(const std::vector<std::string>& names, const Value& value, Scope* scope) {
  if (names.size() == 1) return scope->Set(names[0], value);
  const List parts = Items(value, meter_);
  if (parts.size() != names.size()) {
    throw Failure(std::to_string(parts.size()) + " values for " + std::to_string(names.size()) +
                  " names");
  }
  for (std::size_t i = 0; i < names.size(); ++i) scope->Set(names[i], parts[i]);
}

List Evaluator::Filtered(const Statement& s, const List& items, Scope* scope) {
  List kept;
  for (const Value& item : items) {
    Scope inner{scope, {}};
    Assign(s.names, item, &inner);
    if (Eval(*s.exprs[1], &inner).Truth()) kept.push_back(item);
  }
  return kept;
}

Flow Evaluator::RunFor(const Statement& s, Scope* scope) {
  const Value over = Eval(*s.exprs[0], scope);
  auto loop = std::make_shared<Loop>();
  loop->items = Items(over, meter_);
  if (s.exprs[1]) loop->items = Filtered(s, loop->items, scope);
  const Value self = Value::Of(loop);
  // Held by nobody but by what outlives it: loops in lists of loops could nest without bound.
  const std::unique_ptr<Loop, void (*)(Loop*)> forget(loop.get(), [](Loop* l) { l->End(); });
  for (loop->index = 0; loop->index < loop->items.size(); ++loop->index) {
    meter_->Step();
    Scope inner{scope, {}};
    inner.Set("loop", self);
    Assign(s.names, loop->items[loop->index], &inner);
    if (RunBody(s.bodies[0], &inner) == Flow::kBreak) break;
  }
  if (!loop->items.empty() || s.bodies.size() < 2) return Flow::kOn;
  Scope inner{scope, {}};
  return RunBody(s.bodies[1], &inner);
}

// What a body writes, as a text instead.
std::string Evaluator::Captured(const Body& body, Scope* scope) {
  Rendering before = std::move(out);
  out = {};
  RunBody(body, scope);
  std::string text = std::move(out.text);
  out = std::move(before);
  return text;
}

void Evaluator::RunSet(const Statement& s, Scope* scope) {
  if (s.kind == Statement::Kind::kSet) return Assign(s.names, Eval(*s.exprs[0], scope), scope);
  if (s.kind == Statement::Kind::kSetBlock) {
    Scope inner{scope, {}};
    Value value = Value::Text(Captured(s.bodies[0], &inner), meter_);
    if (s.exprs[0]) value = EvalFilter(*s.exprs[0], scope, &value);
    scope->Set(s.names[0], std::move(value));
    return;
  }
  const Value* target = scope->Find(s.names[0]);
  auto* space = target ? target->object<Namespace>() : nullptr;
  if (!space) throw Failure("\"" + s.names[0] + "\" is no namespace: it has no attributes to set");
  Value value = Eval(*s.exprs[0], scope);
  for (auto& [name, member] : space->members) {
    if (name == s.names[1]) {
      member = std::move(value);
      return;
    }
  }
  space->members.emplace_back(s.names[1], std::move(value));
}

Value Evaluator::Eval(const Expr& e, Scope* scope) {
  using Kind = Expr::Kind;
  const Depth depth(&depth_);
  line_ = e.line;
  meter_->Step();
  switch (e.kind) {
    case Kind::kConst:
      return e.value;
    case Kind::kName:
      return EvalName(e, scope);
    case Kind::kList:
      return Value::OfList(EvalAll(e, scope), meter_);
    case Kind::kTuple:
      return Value::OfList(EvalAll(e, scope), meter_, Form::kTuple);
    case Kind::kDict:
      return EvalDict(e, scope);
    case Kind::kAttr:
      return GetAttribute(Eval(*e.args[0], scope), e.name, meter_);
    case Kind::kItem: {
      const Value value = Eval(*e.args[0], scope);
      return GetItem(value, Eval(*e.args[1], scope), meter_);
    }
    case Kind::kSlice:
      return EvalSlice(e, scope);
    case Kind::kCall:
      return EvalCall(e, scope);
    case Kind::kFilter:
      return EvalFilter(e, scope, nullptr);
    case Kind::kTest:
      return EvalTest(e, scope);
    case Kind::kNot:
    case Kind::kNegate:
    case Kind::kPlus:
      return EvalUnary(e, scope);
    case Kind::kAnd: {
      Value left = Eval(*e.args[0], scope);
      return left.Truth() ? Eval(*e.args[1], scope) : left;
    }
    case Kind::kOr: {
      Value left = Eval(*e.args[0], scope);
      return left.Truth() ? left : Eval(*e.args[1], scope);
    }
    case Kind::kBinary: {
      const Value left = Eval(*e.args[0], scope);
      const Value right = Eval(*e.args[1], scope);
      line_ = e.line;
      return Calculate(e.name, left, right, meter_);
    }
    case Kind::kConcat:
      return EvalConcat(e, scope);
    case Kind::kCompare:
      return EvalCompare(e, scope);
    case Kind::kIf:
      if (Eval(*e.args[1], scope).Truth()) return Eval(*e.args[0], scope);
      return e.args[2] ? Eval(*e.args[2], scope)
                       : Value::Missing("the condition is false and there is no else");
  }
  throw Failure("an unknown expression");
}

Value Evaluator::EvalTest(const Expr& e, Scope* scope) {
  if (!IsTest(e.name)) throw Failure("the test " + configs::Quote(e.name) + " is not supported");
  const Value value = Eval(*e.args[0], scope);
  Arguments args = EvalArguments(e, scope);
  return Value::Bool(CallTest(e.name, value, args, meter_) != e.negated);
}

Value Evaluator::EvalName(const Expr& e, Scope* scope) {
  const Value* found = scope->Find(e.name);
  if (found) return *found;
  // The same prompt must give the same ids tomorrow.
  if (e.name == "strftime_now")
    throw Failure("strftime_now is refused: a prompt must not depend on the day");
  if (IsFunction(e.name))
    throw Failure("the function " + configs::Quote(e.name) + " can only be called");
  return Value::Missing(configs::Quote(e.name) + " is undefined");
}

List Evaluator::EvalAll(const Expr& e, Scope* scope) {
  List list;
  for (const ExprPtr& arg : e.args) list.push_back(Eval(*arg, scope));
  return list;
}

Value Evaluator::EvalDict(const Expr& e, Scope* scope) {
  Dict dict;
  for (std::size_t i = 0; i + 1 < e.args.size(); i += 2) {
    Value key = Eval(*e.args[i], scope);
    Value value = Eval(*e.args[i + 1], scope);
    if (key.IsList() || key.IsDict()) throw Failure("a list or dict cannot be a key");
    const auto known = std::find_if(dict.begin(), dict.end(), [&](const auto& member) {
      return Equal(member.first, key, meter_);
    });
    if (known != dict.end()) {
      known->second = std::move(value);
    } else {
      dict.emplace_back(std::move(key), std::move(value));
    }
  }
  return Value::OfDict(std::move(dict), meter_);
}

Value Evaluator::EvalSlice(const Expr& e, Scope* scope) {
  const Value value = Eval(*e.args[0], scope);
  Value parts[3];
  for (int i = 0; i < 3; ++i)
    parts[i] = e.args[i + 1] ? Eval(*e.args[i + 1], scope) : Value::None();
  return Slice(value, &parts[0], &parts[1], &parts[2], meter_);
}

Value Evaluator::EvalUnary(const Expr& e, Scope* scope) {
  const Value value = Eval(*e.args[0], scope);
  if (e.kind == Expr::Kind::kNot) return Value::Bool(!value.Truth());
  if (!value.IsNumber())
    throw Failure(std::string("a sign before a value of type ") + value.TypeName());
  if (value.IsFloat())
    return Value::Float(e.kind == Expr::Kind::kPlus ? value.number() : -value.number());
  return Calculate(e.kind == Expr::Kind::kPlus ? "+" : "-", Value::Int(0), value, meter_);
}

Value Evaluator::EvalConcat(const Expr& e, Scope* scope) {
  std::string text;
  for (const ExprPtr& arg : e.args) text += Str(Eval(*arg, scope), meter_);
  return Value::Text(std::move(text), meter_);
}

Value Evaluator::EvalCompare(const Expr& e, Scope* scope) {
  Value left = Eval(*e.args[0], scope);
  for (std::size_t i = 0; i < e.names.size(); ++i) {
    Value right = Eval(*e.args[i + 1], scope);
    const std::string& op = e.names[i];
    bool holds;
    if (op == "==" || op == "!=") {
      holds = Equal(left, right, meter_) == (op == "==");
    } else if (op == "in" || op == "not in") {
      holds = Contains(right, left, meter_) == (op == "in");
    } else {
      for (const Value* v : {&left, &right}) {
        if (v->IsUndefined()) throw Failure(v->missing());
      }
      const int c = Compare(left, right, meter_);
      holds = op[0] == '<' ? c < 0 : c > 0;
      if (op.size() == 2 && c == 0) holds = true;
    }
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Arguments Evaluator::EvalArguments(const Expr& e, Scope* scope) {
  Arguments args;
  const std::size_t plain = e.args.size() - e.names.size();
  for (std::size_t i = 1; i < e.args.size(); ++i) {
    Value value = Eval(*e.args[i], scope);
    if (i < plain) {
      args.positional.push_back(std::move(value));
    } else {
      args.named.emplace_back(e.names[i - plain], std::move(value));
    }
  }
  line_ = e.line;
  return args;
}

Value Evaluator::EvalFilter(const Expr& e, Scope* scope, const Value* text) {
  if (!IsFilter(e.name))
    throw Failure("the filter " + configs::Quote(e.name) + " is not supported");
  // In a block set the innermost filter has no operand: it gets the block's text.
  Value value;
  if (!e.args[0]) {
    value = *text;
  } else if (text && e.args[0]->kind == Expr::Kind::kFilter) {
    value = EvalFilter(*e.args[0], scope, text);
  } else {
    value = Eval(*e.args[0], scope);
  }
  Arguments args = EvalArguments(e, scope);
  return CallFilter(e.name, value, args, meter_);
}

Value Evaluator::EvalCall(const Expr& e, Scope* scope) {
  const Expr& callee = *e.args[0];
  if (callee.kind == Expr::Kind::kName && !scope->Find(callee.name) && IsFunction(callee.name)) {
    Arguments args = EvalArguments(e, scope);
    Value result = CallFunction(callee.name, args, meter_);
    if (result.object<Namespace>()) namespaces_.push_back(result.object_ptr());
    return result;
  }
  if (callee.kind == Expr::Kind::kAttr) {
    const Value self = Eval(*callee.args[0], scope);
    if (auto* loop = self.object<Loop>()) {
      Arguments args = EvalArguments(e, scope);
      return loop->Call(callee.name, args, meter_);
    }
  }
  const Value function = Eval(callee, scope);
  Arguments args = EvalArguments(e, scope);
  if (const auto* method = function.object<Method>()) {
    return CallMethod(method->self, method->name, args, meter_);
  }
  if (const auto* macro = function.object<Macro>()) return CallMacro(*macro->definition, args);
  if (function.IsUndefined()) throw Failure(function.missing() + ": it cannot be called");
  throw Failure(std::string("a value of type ") + function.TypeName() + " cannot be called");
}

Value Evaluator::CallMacro(const Statement& macro, Arguments& args) {
  if (++macros_ > kMaxMacros) throw Failure("macros call macros too deeply");
  Scope inner{globals_, {}};
  const std::size_t plain = macro.names.size() - macro.exprs.size();
  for (std::size_t i = 0; i < macro.names.size(); ++i) {
    const Value* given = args.Take(i, macro.names[i].c_str());
    inner.Set(macro.names[i],
              given ? *given
              : i < plain
                  ? Value::Missing("parameter " + configs::Quote(macro.names[i]) + " was not given")
                  : Eval(*macro.exprs[i - plain], &inner));
  }
  args.Done(macro.text);
  std::string text = Captured(macro.bodies[0], &inner);
  --macros_;
  return Value::Text(std::move(text), meter_);
}

}  // namespace

Rendering Run(const Body& body, std::vector<std::pair<std::string, Value>> globals, Meter* meter) {
  Scope scope{nullptr, std::move(globals)};
  Evaluator evaluator(&scope, meter);
  try {
    evaluator.RunBody(body, &scope);
  } catch (const Failure& failure) {
    const int line = evaluator.line();
    evaluator.Forget();
    throw SyntaxError(line, failure.what());
  }
  evaluator.Forget();
  return std::move(evaluator.out);
}

}  // namespace temper::engine::jinja
