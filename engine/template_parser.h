#pragma once
// A chat template as a tree: the supported part of Jinja, everything else refused with its line.
#include <memory>
#include <string>
#include <vector>

#include "engine/template_value.h"

namespace temper::engine::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind : std::uint8_t {
    kConst,   // value
    kName,    // name
    kList,    // args
    kTuple,   // args
    kDict,    // args: key, value, key, value, ...
    kAttr,    // args[0] . name
    kItem,    // args[0] [ args[1] ]
    kSlice,   // args[0] [ args[1] : args[2] : args[3] ], the last three may be null
    kCall,    // args[0] ( the others, the last ones named by names )
    kFilter,  // args[0] | name ( the others ); args[0] is null in a block set
    kTest,    // args[0] is [not] name ( the others )
    kNot,     // args[0]
    kNegate,  // args[0]
    kPlus,    // args[0]
    kAnd,     // args[0], args[1]
    kOr,
    kBinary,   // name: + - * / // % **
    kConcat,   // args
    kCompare,  // args[0] names[0] args[1] names[1] args[2] ...
    kIf        // args[0] if args[1] else args[2], which may be null
  };
  Kind kind = Kind::kConst;
  bool negated = false;
  int line = 1;
  int depth = 1;
  std::string name;
  Value value;
  std::vector<ExprPtr> args;
  std::vector<std::string> names;
};

struct Statement;
using Body = std::vector<Statement>;

struct Statement {
  enum class Kind : std::uint8_t {
    kText,        // text
    kOutput,      // exprs
    kIf,          // exprs: a condition a branch; bodies: the branches, then perhaps else
    kFor,         // names: targets; exprs[0]: what; exprs[1]: filter or null; bodies: loop, else
    kSet,         // names: targets; exprs[0]
    kSetAttr,     // names[0] . names[1] = exprs[0]
    kSetBlock,    // names[0]; exprs[0]: filters over the text or null; bodies[0]
    kMacro,       // text: name; names: parameters; exprs: defaults of the last ones; bodies[0]
    kWith,        // names, exprs: one each; bodies[0]
    kGeneration,  // bodies[0]: what the assistant says
    kBreak,
    kContinue
  };
  Kind kind = Kind::kText;
  int line = 1;
  std::string text;
  std::vector<ExprPtr> exprs;
  std::vector<std::string> names;
  std::vector<Body> bodies;
};

/// Throws SyntaxError.
Body Parse(std::string_view source);

}  // namespace temper::engine::jinja
